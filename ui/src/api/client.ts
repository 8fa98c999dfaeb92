// Requests to the API this page came from. Every failure becomes a `Fault`: what happened and what to do next.

import type { ApiError, Problem } from "./types";

/** How long an answer may take that is not a stream. */
const PATIENCE_MS = 15_000;

/** A request that failed, in the words of the API or, when it could not be reached, in our own. */
export class Fault extends Error {
  readonly code: string;
  readonly hint: string;
  readonly field: string | undefined;
  readonly problems: Problem[];
  /** The HTTP status; 0 without an answer. */
  readonly status: number;

  constructor(error: ApiError, status: number) {
    super(error.message);
    this.code = error.code;
    this.hint = error.hint ?? "";
    this.field = error.field ?? undefined;
    this.problems = error.problems ?? [];
    this.status = status;
  }

  /** Nobody knows who this is: the page has to ask for a way in. */
  get isUnknownCaller(): boolean {
    return this.status === 401;
  }
}

/** Whatever was thrown, as a fault. */
export function asFault(error: unknown): Fault {
  if (error instanceof Fault) return error;
  const late = error instanceof DOMException && error.name === "TimeoutError";
  return new Fault(
    {
      code: late ? "HM0701" : "HM0601",
      message: late ? "the daemon did not answer in time" : "the daemon does not answer",
      hint: "see whether it runs: hivemind status",
    },
    0,
  );
}

/** Sends a request and gives the JSON of its answer; nothing, if the answer is empty. */
export async function send<T>(method: string, path: string, body?: unknown, signal?: AbortSignal, patienceMs = PATIENCE_MS): Promise<T> {
  const patience = AbortSignal.timeout(patienceMs);
  const response = await request(method, path, body, signal ? AbortSignal.any([signal, patience]) : patience);
  const text = await response.text();
  return (text === "" ? undefined : JSON.parse(text)) as T;
}

/** Opens a stream of lines. */
export async function open(path: string, signal: AbortSignal): Promise<ReadableStream<Uint8Array>> {
  const response = await request("GET", path, undefined, signal);
  if (response.body === null) throw new TypeError("an answer without a body");
  return response.body;
}

async function request(method: string, path: string, body: unknown, signal: AbortSignal): Promise<Response> {
  const headers: Record<string, string> = { accept: "application/json, application/x-ndjson" };
  const init: RequestInit = { method, headers, signal, credentials: "same-origin", cache: "no-store" };
  if (method !== "GET") {
    headers["content-type"] = "application/json";
    init.body = JSON.stringify(body ?? {});
  }
  const response = await fetch(path, init);
  if (!response.ok) throw new Fault(await errorOf(response), response.status);
  return response;
}

async function errorOf(response: Response): Promise<ApiError> {
  try {
    const error: unknown = await response.json();
    if (typeof error === "object" && error !== null && "code" in error && "message" in error) return error as ApiError;
  } catch {
    // Not the API's words; say what is known.
  }
  return { code: `HTTP ${response.status}`, message: response.statusText || "the request failed", hint: "" };
}
