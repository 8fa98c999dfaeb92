// How the daemon and its node are, asked again and again while the page is looked at.

import { asFault, type Fault, send } from "../api/client";
import type { Status } from "../api/types";
import { session } from "./session.svelte";

const EVERY_MS = 3_000;

/** Over how long denied packets are counted. */
const COUNTED_MS = 60_000;

/** How many packets policies had denied at some time. */
interface Sample {
  time: number;
  denied: number;
}

class NodeStatus {
  now: Status | undefined = $state.raw(undefined);
  fault: Fault | undefined = $state.raw(undefined);
  #samples: Sample[] = $state.raw([]);

  /** Packets that policies denied in the last minute, or since this page looks. */
  get denied(): { packets: number; ms: number } {
    const [first, last] = [this.#samples[0], this.#samples.at(-1)];
    if (!first || !last) return { packets: 0, ms: 0 };
    return { packets: Math.max(0, last.denied - first.denied), ms: last.time - first.time };
  }

  #count(now: Status): void {
    const time = Date.now();
    const denied = now.drops.filter((drop) => drop.reason.startsWith("policy")).reduce((sum, drop) => sum + drop.packets, 0);
    this.#samples = [...this.#samples.filter((sample) => sample.time >= time - COUNTED_MS), { time, denied }];
  }

  follow(): () => void {
    let stopped = false;
    let timer: number | undefined;
    const ask = async (): Promise<void> => {
      if (!document.hidden) {
        try {
          this.now = await send<Status>("GET", "/v1/status");
          this.fault = undefined;
          this.#count(this.now);
        } catch (error) {
          this.fault = asFault(error);
          if (this.fault.isUnknownCaller) session.lost();
        }
      }
      if (!stopped) timer = window.setTimeout(() => void ask(), EVERY_MS);
    };
    void ask();
    return () => {
      stopped = true;
      clearTimeout(timer);
    };
  }
}

export const status = new NodeStatus();
