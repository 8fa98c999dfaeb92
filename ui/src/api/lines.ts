// Streams of lines of JSON, followed for as long as the page is looked at.

import { asFault, Fault, open } from "./client";
import type { ErrorLine } from "./types";

/** The API says that it lives every 15 s; a stream that is silent for longer than this is dead. */
const SILENCE_MS = 40_000;

/** No line of the API is longer; a stream that claims so is ended. */
const LINE_LENGTH_MAX = 8 << 20;

/** Waiting between two attempts: doubles up to a limit, and begins anew once a stream has told everything. */
const PAUSE_FIRST_MS = 500;
const PAUSE_MAX_MS = 10_000;

/** A page that was out of sight for so long gives its connections back. */
const HIDDEN_MS = 20_000;

export type LinkState = "connecting" | "live" | "waiting" | "paused";

export interface Follower<Line> {
  /** Where the stream is; asked before each attempt. */
  path(): string;
  /** A new stream begins: what the last one told is told again. */
  begin(): void;
  /** A line came. */
  line(line: Line): void;
  /** The state of the stream changed; with the fault that ended it. */
  state(state: LinkState, fault?: Fault): void;
}

/** Follows a stream, and opens it again whenever it ends, until `stop`. */
export class Link<Line extends object> {
  #follower: Follower<Line>;
  #stopped = false;
  #pause = PAUSE_FIRST_MS;
  #attempt: AbortController | undefined;
  #wake: (() => void) | undefined;
  #hideTimer: number | undefined;

  constructor(follower: Follower<Line>) {
    this.#follower = follower;
    document.addEventListener("visibilitychange", this.#seen);
    void this.#run();
  }

  /** Everything was told: if the stream ends now, there is no need to wait long. */
  settled(): void {
    this.#pause = PAUSE_FIRST_MS;
    this.#follower.state("live");
  }

  /** Ends the stream and opens it again now. */
  restart(): void {
    this.#pause = PAUSE_FIRST_MS;
    this.#attempt?.abort();
    this.#wake?.();
  }

  stop(): void {
    this.#stopped = true;
    document.removeEventListener("visibilitychange", this.#seen);
    clearTimeout(this.#hideTimer);
    this.restart();
  }

  #seen = (): void => {
    clearTimeout(this.#hideTimer);
    if (document.hidden) this.#hideTimer = window.setTimeout(() => this.#attempt?.abort(), HIDDEN_MS);
    else this.#wake?.();
  };

  async #run(): Promise<void> {
    while (!this.#stopped) {
      this.#follower.state("connecting");
      const attempt = new AbortController();
      this.#attempt = attempt;
      try {
        const body = await open(this.#follower.path(), attempt.signal);
        this.#follower.begin();
        await read<Line | ErrorLine>(body, (line) => {
          if ("type" in line && line.type === "error" && "error" in line) throw new Fault(line.error, 200);
          this.#follower.line(line as Line);
        });
        this.#follower.state("waiting");
      } catch (error) {
        if (this.#stopped) return;
        if (!attempt.signal.aborted) {
          const fault = asFault(error);
          this.#follower.state("waiting", fault);
          // Who is not known will not be known by asking again.
          if (fault.isUnknownCaller) return;
        } else if (document.hidden) {
          this.#follower.state("paused");
        } else {
          continue;
        }
      } finally {
        attempt.abort();
      }
      await this.#wait();
    }
  }

  async #wait(): Promise<void> {
    const pause = this.#pause * (0.75 + Math.random() / 2);
    this.#pause = Math.min(this.#pause * 2, PAUSE_MAX_MS);
    await new Promise<void>((resolve) => {
      const timer = document.hidden ? undefined : window.setTimeout(resolve, pause);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    this.#wake = undefined;
  }
}

/** Hands each line of a body to `take`; blank ones only say that the stream lives. */
async function read<Line>(body: ReadableStream<Uint8Array>, take: (line: Line) => void): Promise<void> {
  const reader = body.pipeThrough(new TextDecoderStream() as ReadableWritablePair<string, Uint8Array>).getReader();
  let rest = "";
  for (;;) {
    const silence = window.setTimeout(() => void reader.cancel(), SILENCE_MS);
    const { done, value } = await reader.read().finally(() => clearTimeout(silence));
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop() ?? "";
    if (rest.length > LINE_LENGTH_MAX) throw new TypeError("a line without an end");
    for (const line of lines) if (line !== "") take(JSON.parse(line) as Line);
  }
}
