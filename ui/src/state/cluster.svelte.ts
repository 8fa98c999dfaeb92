// The objects of the cluster, as the API's watch tells of them.

import type { Fault } from "../api/client";
import { Link, type LinkState } from "../api/lines";
import type { App, KindLine, Metadata, NetworkPolicy, Replica, Service } from "../api/types";
import { session } from "./session.svelte";

interface Kinds {
  apps: App;
  replicas: Replica;
  services: Service;
  networkpolicies: NetworkPolicy;
}
type Kind = keyof Kinds;

const KINDS: Kind[] = ["apps", "replicas", "services", "networkpolicies"];

/** One kind: what the present stream has told, and what is shown meanwhile. */
class Table<T extends { metadata: Metadata }> {
  shown: T[] = $state.raw([]);
  /** Whether all that is there has been told once. */
  known = $state(false);
  #told = new Map<string, T>();
  #whole = false;

  begin(): void {
    this.#told = new Map();
    this.#whole = false;
  }

  put(object: T): void {
    this.#told.set(object.metadata.uid ?? keyOf(object), object);
  }

  remove(object: T): void {
    this.#told.delete(object.metadata.uid ?? keyOf(object));
  }

  whole(): void {
    this.#whole = true;
    this.known = true;
  }

  get isWhole(): boolean {
    return this.#whole;
  }

  /** Shows what was told. Not before it is whole, so that nothing vanishes while a stream begins again. */
  show(): void {
    if (!this.#whole) return;
    this.shown = [...this.#told.values()].sort((a, b) => keyOf(a).localeCompare(keyOf(b)));
  }
}

/** `namespace/name`. */
export function keyOf(object: { metadata: Metadata }): string {
  return `${object.metadata.namespace ?? "default"}/${object.metadata.name}`;
}

class Cluster {
  readonly #tables = {
    apps: new Table<App>(),
    replicas: new Table<Replica>(),
    services: new Table<Service>(),
    networkpolicies: new Table<NetworkPolicy>(),
  };
  link: LinkState = $state("connecting");
  fault: Fault | undefined = $state.raw(undefined);
  #stream: Link<KindLine> | undefined;
  #frame: number | undefined;

  /** Whether the daemon is out of reach: what is shown may be old, and nothing can be changed. */
  get cutOff(): boolean {
    return this.link === "waiting";
  }
  get apps(): App[] {
    return this.#tables.apps.shown;
  }
  get replicas(): Replica[] {
    return this.#tables.replicas.shown;
  }
  get services(): Service[] {
    return this.#tables.services.shown;
  }
  get policies(): NetworkPolicy[] {
    return this.#tables.networkpolicies.shown;
  }
  /** Whether everything has been told once: until then, empty does not mean that there is nothing. */
  get known(): boolean {
    return KINDS.every((kind) => this.#tables[kind].known);
  }

  replicasOf(app: App): Replica[] {
    const namespace = app.metadata.namespace ?? "default";
    return this.replicas.filter(
      (replica) => replica.spec.app === app.metadata.name && (replica.metadata.namespace ?? "default") === namespace,
    );
  }

  serviceOf(app: App): Service | undefined {
    return this.services.find((service) => keyOf(service) === keyOf(app));
  }

  follow(): () => void {
    const stream = new Link<KindLine>({
      path: () => `/v1/watch?kinds=${KINDS.join(",")}`,
      begin: () => KINDS.forEach((kind) => this.#tables[kind].begin()),
      line: (line) => this.#take(line),
      state: (state, fault) => {
        // While it tries again, it is still lost.
        if (state !== "connecting" || this.link !== "waiting") this.link = state;
        this.fault = state === "live" ? undefined : (fault ?? this.fault);
        if (fault?.isUnknownCaller) session.lost();
      },
    });
    this.#stream = stream;
    return () => stream.stop();
  }

  /** Connects again without waiting. */
  retry(): void {
    this.#stream?.restart();
  }

  #take({ kind, line }: KindLine): void {
    if (!(kind in this.#tables)) return;
    const table = this.#tables[kind as Kind] as Table<App | Replica | Service | NetworkPolicy>;
    switch (line.type) {
      case "added":
      case "modified":
        table.put(line.object as App);
        break;
      case "deleted":
        table.remove(line.object as App);
        break;
      case "bookmark":
        table.whole();
        if (KINDS.every((each) => this.#tables[each].isWhole)) this.#stream?.settled();
        break;
      case "error":
        break;
    }
    this.#frame ??= requestAnimationFrame(() => {
      this.#frame = undefined;
      KINDS.forEach((each) => this.#tables[each].show());
    });
  }
}

export const cluster = new Cluster();
