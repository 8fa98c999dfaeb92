// Who looks at this page, and what they may do.

import { asFault, type Fault, send } from "../api/client";
import type { Session } from "../api/types";

class CurrentSession {
  /** `asking` until the API has said who this is; `out` when it does not know. */
  state: "asking" | "in" | "out" | "unreachable" = $state("asking");
  who: Session | undefined = $state.raw(undefined);
  /** Why the last way in did not work. */
  fault: Fault | undefined = $state.raw(undefined);

  /** Whether changes are allowed. */
  get mayChange(): boolean {
    return this.who?.role === "admin";
  }

  /** Why changes are not allowed, for those who wonder. */
  get why(): string {
    return this.mayChange ? "" : `The token ${this.who?.name ?? ""} may look, but not change anything.`;
  }

  /** Finds out who this is; a one-time code in the address is used up, and taken out of it first. */
  async begin(): Promise<void> {
    const code = /^#code=(.+)$/.exec(location.hash)?.[1];
    if (code !== undefined) {
      history.replaceState(null, "", location.pathname + location.search);
      if (await this.enter({ code: decodeURIComponent(code) })) return;
    }
    await this.ask();
  }

  async ask(): Promise<void> {
    try {
      this.who = await send<Session>("GET", "/v1/session");
      this.state = "in";
    } catch (error) {
      const fault = asFault(error);
      this.state = fault.isUnknownCaller ? "out" : "unreachable";
      if (!fault.isUnknownCaller) this.fault = fault;
    }
  }

  /** Logs in with a code or a token. */
  async enter(way: { code: string } | { token: string }): Promise<boolean> {
    this.fault = undefined;
    try {
      this.who = await send<Session>("POST", "/v1/login", way);
      this.state = "in";
      return true;
    } catch (error) {
      this.fault = asFault(error);
      this.state = "out";
      return false;
    }
  }

  async leave(): Promise<void> {
    try {
      await send<unknown>("POST", "/v1/logout");
    } finally {
      this.who = undefined;
      this.state = "out";
    }
  }

  /** The API no longer knows who this is. */
  lost(): void {
    if (this.state !== "in") return;
    this.who = undefined;
    this.state = "out";
  }
}

export const session = new CurrentSession();
