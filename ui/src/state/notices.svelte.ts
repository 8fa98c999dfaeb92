// Short words on what was just done, gone after a while; what failed stays until it is closed.

import { asFault, type Fault } from "../api/client";

const SHOWN_MS = 5_000;
const NOTICES_MAX = 4;

export interface Notice {
  number: number;
  text: string;
  fault: Fault | undefined;
}

class Notices {
  list: Notice[] = $state.raw([]);
  #last = 0;

  say(text: string): void {
    const number = this.#add(text, undefined);
    window.setTimeout(() => this.close(number), SHOWN_MS);
  }

  fail(text: string, error: unknown): void {
    this.#add(text, asFault(error));
  }

  close(number: number): void {
    this.list = this.list.filter((notice) => notice.number !== number);
  }

  #add(text: string, fault: Fault | undefined): number {
    const number = ++this.#last;
    this.list = [...this.list, { number, text, fault }].slice(-NOTICES_MAX);
    return number;
  }
}

export const notices = new Notices();
