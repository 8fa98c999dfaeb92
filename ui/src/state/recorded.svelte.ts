// What nodes recorded, by pair of ends: read when a span is chosen or someone looks again, and never by itself.

import { asFault, type Fault, send } from "../api/client";
import type { PolicyMatrix } from "../api/types";
import { session } from "./session.svelte";

/** Spans of time that can be looked at, as the API takes them and as people say them. */
export const SPANS = [
  { since: "15m", words: "last 15 minutes" },
  { since: "1h", words: "last hour" },
  { since: "1d", words: "last day" },
  { since: "7d", words: "last week" },
] as const;

export type Since = (typeof SPANS)[number]["since"];

/** How long an answer may take: a week of all nodes is read from their disks. */
const PATIENCE_MS = 60_000;

class Recorded {
  /** The span that is shown; empty while flows are shown live. */
  since: Since | "" = $state("");
  matrix: PolicyMatrix | undefined = $state.raw(undefined);
  busy = $state(false);
  /** Why the last reading did not work. */
  fault: Fault | undefined = $state.raw(undefined);

  #attempt: AbortController | undefined;

  get words(): string {
    return SPANS.find(({ since }) => since === this.since)?.words ?? "";
  }

  /** Shows a span; nothing of another one stays. */
  show(since: Since): void {
    if (since !== this.since) this.#forget();
    this.since = since;
    void this.again();
  }

  /** Shows flows live. */
  live(): void {
    this.#forget();
    this.since = "";
  }

  /** Reads the span again; what was read stays until there is an answer. */
  async again(): Promise<void> {
    this.#attempt?.abort();
    const attempt = new AbortController();
    this.#attempt = attempt;
    this.busy = true;
    try {
      const matrix = await send<PolicyMatrix>("GET", `/v1/networkpolicies/matrix?since=${this.since}`, undefined, attempt.signal, PATIENCE_MS);
      if (attempt.signal.aborted) return;
      this.matrix = matrix;
      this.fault = undefined;
    } catch (error) {
      if (attempt.signal.aborted) return;
      this.fault = asFault(error);
      if (this.fault.isUnknownCaller) session.lost();
    }
    this.busy = false;
  }

  /** The daemon is out of reach: what is read now will not come, and a daemon after it would not know who asks. */
  lost(fault: Fault | undefined): void {
    this.#attempt?.abort();
    this.busy = false;
    this.fault = fault ?? asFault(undefined);
  }

  /** Reads what the address asks for, and stops when nobody looks any more. */
  begin(): () => void {
    if (this.since !== "") void this.again();
    return () => this.#forget();
  }

  #forget(): void {
    this.#attempt?.abort();
    this.matrix = undefined;
    this.fault = undefined;
    this.busy = false;
  }
}

export const recorded = new Recorded();
