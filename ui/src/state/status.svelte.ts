// How the daemon and its node are, asked again and again while the page is looked at.

import { asFault, type Fault, send } from "../api/client";
import type { Status } from "../api/types";
import { session } from "./session.svelte";

const EVERY_MS = 3_000;

class NodeStatus {
  now: Status | undefined = $state.raw(undefined);
  fault: Fault | undefined = $state.raw(undefined);

  follow(): () => void {
    let stopped = false;
    let timer: number | undefined;
    const ask = async (): Promise<void> => {
      if (!document.hidden) {
        try {
          this.now = await send<Status>("GET", "/v1/status");
          this.fault = undefined;
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
