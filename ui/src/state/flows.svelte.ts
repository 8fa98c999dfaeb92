// Live flows: the last few hundred, one row for each connection or attempt at one.

import type { Fault } from "../api/client";
import { Link, type LinkState } from "../api/lines";
import type { Flow, FlowEnd, FlowLine, FlowVerdict } from "../api/types";
import { session } from "./session.svelte";

/** Rows that are kept; the oldest go first. */
export const ROWS_MAX = 300;

/** How often what came is shown: often enough to be live, seldom enough to be calm. */
const SHOW_EVERY_MS = 300;

export interface Row {
  key: string;
  flow: Flow;
  /** How often it was refused. */
  times: number;
}

class Flows {
  rows: Row[] = $state.raw([]);
  lost = $state(0);
  paused = $state(false);
  /** Rows that came since the pause began. */
  waiting = $state(0);
  link: LinkState = $state("connecting");
  fault: Fault | undefined = $state.raw(undefined);
  /** `namespace/app` at either end, or empty for all. */
  app = $state("");
  verdict: FlowVerdict | "" = $state("");

  #rows = new Map<string, Row>();
  #stream: Link<FlowLine> | undefined;
  #timer: number | undefined;
  #dirty = false;

  follow(): () => void {
    const stream = new Link<FlowLine>({
      path: () => `/v1/flows?follow=true&tail=${ROWS_MAX}${this.verdict ? `&verdict=${this.verdict}` : ""}`,
      begin: () => {
        this.#rows = new Map();
        this.#dirty = true;
        this.#stream?.settled();
      },
      line: (line) => this.#take(line),
      state: (state, fault) => {
        // While it tries again, it is still lost.
        if (state !== "connecting" || this.link !== "waiting") this.link = state;
        this.fault = state === "live" ? undefined : (fault ?? this.fault);
        if (fault?.isUnknownCaller) session.lost();
      },
    });
    this.#stream = stream;
    this.#timer = window.setInterval(() => this.#show(), SHOW_EVERY_MS);
    return () => {
      clearInterval(this.#timer);
      stream.stop();
    };
  }

  /** Shows only these from now on, and of the past what the daemon still knows. */
  filter(verdict: FlowVerdict | "", app: string): void {
    const again = verdict !== this.verdict || app !== this.app;
    this.verdict = verdict;
    this.app = app;
    if (again) {
      this.rows = [];
      this.#stream?.restart();
    }
  }

  resume(): void {
    this.paused = false;
    this.waiting = 0;
    this.#dirty = true;
    this.#show();
  }

  retry(): void {
    this.#stream?.restart();
  }

  #take(line: FlowLine): void {
    if (line.type === "lost") {
      this.lost += line.object.events;
      return;
    }
    // Past minutes and how far back events reach come only to who asks for them.
    if (line.type !== "flow") return;
    const flow = line.object;
    if (this.app !== "" && !touches(flow, this.app)) return;
    const refusal = flow.verdict !== "allowed";
    const key = keyOf(flow);
    const row = this.#rows.get(key);
    if (row === undefined && this.paused) this.waiting = Math.min(this.waiting + 1, ROWS_MAX);
    this.#rows.set(key, { key, flow, times: (row?.times ?? 0) + (refusal ? 1 : 0) });
    if (this.#rows.size > ROWS_MAX) this.#rows.delete(this.#rows.keys().next().value ?? "");
    this.#dirty = true;
  }

  #show(): void {
    if (this.paused || !this.#dirty) return;
    this.#dirty = false;
    this.rows = [...this.#rows.values()].reverse();
  }
}

function touches(flow: Flow, app: string): boolean {
  return [flow.source, flow.destination].some((end) => `${end.namespace ?? ""}/${end.app ?? ""}` === app);
}

/** The same for all that is told of one connection, and for all attempts at one that was refused. */
function keyOf(flow: Flow): string {
  const end = (at: FlowEnd, port: boolean) => `${at.address ?? at.kind}:${port ? (at.port ?? "") : ""}`;
  const source = end(flow.source, flow.verdict === "allowed");
  const began = flow.verdict === "allowed" ? (flow.began ?? "") : flow.reason;
  return `${flow.verdict} ${flow.protocol} ${source} ${end(flow.destination, true)} ${began}`;
}

export const flows = new Flows();
