// What was recorded by pair of ends, in rows and words. Sums over what the API left out are said to be more than they are.

import type { MatrixOpen, MatrixPair, MatrixPorts, MatrixRange, MatrixUse, PolicyMatrix, TrafficCount } from "../api/types";
import { bytes, many, whole } from "./format";

/** How many ends, and how many ports, are named together. */
const ENDS_MAX = 4;
const PORTS_MAX = 6;

const NONE: TrafficCount = { least: 0, most: 0 };

export interface Now {
  tone: "good" | "bad" | "warn" | "idle";
  text: string;
}

/** What was recorded of one pair. */
export interface PairRow {
  key: string;
  source: string;
  destination: string;
  refused: TrafficCount;
  connections: TrafficCount;
  sent: TrafficCount;
  received: TrafficCount;
  /** Whether ports were left out of the sums. */
  isMore: boolean;
  passed: boolean;
  now: Now;
  uses: UseRow[];
  moreUses: number;
  /** What else is allowed, and never passed. */
  unused: string;
}

/** What was recorded of one port. */
export interface UseRow {
  key: string;
  port: string;
  isRefused: boolean;
  count: string;
  now: Now;
}

/** Pairs that are allowed something and never used it. */
export interface UnusedRow {
  key: string;
  sources: string;
  destinations: string;
  ports: string;
}

/** An end by the name that people give it. */
export function end(name: string): string {
  switch (name) {
    case "host":
      return "nodes";
    case "dns":
      return "DNS";
    case "world":
      return "outside";
    default:
      return name.replace(/^default\//, "");
  }
}

/** `60`, or `60 to 120` where only bounds are known. */
export function between(count: TrafficCount, of: (number: number) => string = whole): string {
  return count.least === count.most ? of(count.most) : `${of(count.least)} to ${of(count.most)}`;
}

/** `1.2 MB there, 40 MB back`. */
export function thereAndBack(sent: TrafficCount, received: TrafficCount): string {
  return `${between(sent, bytes)} there, ${between(received, bytes)} back`;
}

export function connections(count: TrafficCount): string {
  // Bytes of what had begun before the records.
  if (count.most === 0) return "ongoing";
  return count.least === count.most ? many(count.most, "connection") : `${between(count)} connections`;
}

function sum(counts: TrafficCount[]): TrafficCount {
  return counts.reduce((sum, { least, most }) => ({ least: sum.least + least, most: sum.most + most }), NONE);
}

function nowOf(uses: MatrixUse[], judged: boolean): Now {
  const said = new Set(uses.map((use) => use.now));
  if (!judged || said.has(undefined) || said.has(null)) return { tone: "idle", text: "not judged" };
  if (said.size > 1) return { tone: "warn", text: "partly allowed now" };
  if (said.has("allowed")) return { tone: "good", text: "allowed now" };
  return said.has("denied") ? { tone: "bad", text: "denied now" } : { tone: "warn", text: "allowed now for some" };
}

function port(use: MatrixUse): string {
  if (use.port != null) return `${use.port}/${use.protocol}`;
  return /^\d+$/.test(use.protocol) ? `protocol ${use.protocol}` : use.protocol;
}

function useRow(use: MatrixUse, isRefused: boolean): UseRow {
  const name = port(use);
  const passed = (): string => `${connections(use.connections)}, ${thereAndBack(use.bytesSent, use.bytesReceived)}`;
  const count = isRefused ? `${between(use.connections)} refused` : passed();
  return { key: `${name} ${isRefused}`, port: name, isRefused, count, now: nowOf([use], true) };
}

function pairRow(pair: MatrixPair): PairRow {
  const { source, destination, used, denied, judged } = pair;
  const isAny = pair.allowed.ranges[0]?.protocol === "any";
  const isElse = isAny && used.length > 0 && pair.unused.ranges.length > 0;
  const open = isElse ? "everything else" : ports(pair.unused, pair.unusedBySome);
  return {
    key: `${source} ${destination}`,
    source,
    destination,
    refused: sum(denied.map((use) => use.connections)),
    connections: sum(used.map((use) => use.connections)),
    sent: sum(used.map((use) => use.bytesSent)),
    received: sum(used.map((use) => use.bytesReceived)),
    isMore: (pair.moreUsed ?? 0) + (pair.moreDenied ?? 0) > 0,
    passed: used.length > 0,
    now: nowOf([...denied, ...used], judged),
    uses: [...denied.map((use) => useRow(use, true)), ...used.map((use) => useRow(use, false))],
    moreUses: (pair.moreUsed ?? 0) + (pair.moreDenied ?? 0),
    unused: open,
  };
}

/** Rows of an app's pairs, or of all if it is empty: what was refused most first, then what spoke most. */
export function pairRows(matrix: PolicyMatrix, app: string, verdict: string): PairRow[] {
  const isShown = ({ source, destination, used, denied }: MatrixPair): boolean =>
    (app === "" || source === app || destination === app) &&
    (verdict !== "allowed" || used.length > 0) &&
    (verdict !== "denied" || denied.length > 0);
  const volume = (row: PairRow): number => row.sent.most + row.received.most;
  return matrix.pairs
    .filter(isShown)
    .map(pairRow)
    .sort((one, other) => other.refused.most - one.refused.most || volume(other) - volume(one) || other.connections.most - one.connections.most);
}

/** What the rows come to. */
export function refusedInSum(rows: PairRow[]): string {
  const refused = rows.filter((row) => row.refused.most > 0);
  if (refused.length === 0) return "";
  const attempts = sum(refused.map((row) => row.refused));
  const prefix = refused.some((row) => row.isMore) ? "at least " : "";
  return `${prefix}${many(attempts.most, "attempt")} refused, of ${many(refused.length, "pair")}`;
}

export function passedInSum(rows: PairRow[]): string {
  const passed = rows.filter((row) => row.passed);
  if (passed.length === 0) return "nothing passed";
  const of = (what: (row: PairRow) => TrafficCount): TrafficCount => sum(passed.map(what));
  const prefix = passed.some((row) => row.isMore) ? "at least " : "";
  return `${many(passed.length, "pair")} spoke: ${prefix}${connections(of((row) => row.connections))}, ${thereAndBack(
    of((row) => row.sent),
    of((row) => row.received),
  )}`;
}

/** How many pairs are allowed something and never used it, in words. */
export function unusedInSum(matrix: PolicyMatrix, app: string): string {
  const pairs = groups(matrix, app).reduce((sum, group) => sum + group.sources.length * group.destinations.length, 0);
  const [open, free] = [matrix.openFromAll, matrix.openToAll].map((apps) => apps.filter((one) => app === "" || one === app).length);
  const parts = [pairs ? many(pairs, "pair") : "", open ? `${many(open, "app")} open to anybody` : "", free ? `${many(free, "app")} free to reach anybody` : ""];
  return parts.filter((part) => part !== "").join(", ");
}

/** What is allowed and was never used, by those of which the same is so. */
export function unusedRows(matrix: PolicyMatrix, app: string): UnusedRow[] {
  const rows = groups(matrix, app).map(({ sources, destinations, allowed, some }, index) => ({
    key: `group ${index}`,
    sources: ends(sources),
    destinations: ends(destinations),
    ports: ports(allowed, some),
  }));
  const of = (apps: string[]): string => ends(apps.filter((one) => app === "" || one === app));
  const everything = (way: string): string => `everything: no policy governs what ${way}`;
  const [open, free] = [of(matrix.openFromAll), of(matrix.openToAll)];
  if (open) rows.push({ key: "open", sources: "anybody", destinations: open, ports: everything("comes in") });
  if (free) rows.push({ key: "free", sources: free, destinations: "anybody", ports: everything("goes out") });
  return rows;
}

/** What is not in the rows, one sentence each. */
export function leftOut(matrix: PolicyMatrix): string[] {
  const said: [number, string][] = [
    [matrix.morePairs, "more pairs, those with the fewest connections, are left out"],
    [matrix.moreOpen, "more groups of pairs that are allowed something and never used it are left out"],
    [matrix.unjudged, "pairs were not judged, since there are too many, or policies name too many domains"],
    [matrix.gone, "recorded pairs by port have an end that is no more, or an app without replicas"],
    [matrix.unknown, "recorded pairs by port have an end, or a protocol, that nobody knows"],
    [matrix.beyond, "connections are in no row, since there were too many different ones"],
  ];
  return said.filter(([number]) => number > 0).map(([number, what]) => `${whole(number)} ${what}.`);
}

/** How far the records of each node reach, as far as there are some. */
export function reach(matrix: PolicyMatrix, now: Date): string[] {
  return matrix.nodes.map(({ node, first, last }) =>
    first && last ? `${node} from ${minute(first, now)} to ${minute(last, now)}` : `${node}: nothing`,
  );
}

/** Whose records are missing, one sentence each. */
export function missing(matrix: PolicyMatrix): string[] {
  return (matrix.missing ?? []).map((place) =>
    place === "log" ? "Some of a node's log cannot be read." : `The records of ${place} are missing, in whole or in part.`,
  );
}

/** `14:03`, and the day if that is not today. */
function minute(time: string, now: Date): string {
  const date = new Date(time);
  const clock = date.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
  if (date.toDateString() === now.toDateString()) return clock;
  return `${date.toLocaleDateString("en-GB", { day: "numeric", month: "short" })} ${clock}`;
}

/** Of groups those with an app, and of their other ends all. */
function groups(matrix: PolicyMatrix, app: string): MatrixOpen[] {
  if (app === "") return matrix.open;
  return matrix.open.flatMap((group) => [
    ...(group.sources.includes(app) ? [{ ...group, sources: [app] }] : []),
    ...(group.destinations.includes(app) ? [{ ...group, destinations: [app], sources: group.sources.filter((source) => source !== app) }] : []),
  ].filter(({ sources }) => sources.length > 0));
}

function ends(names: string[]): string {
  return joined(names.map(end), ENDS_MAX, 0);
}

function ports(all: MatrixPorts, some: MatrixPorts | undefined): string {
  const named = [...all.ranges.map(range), ...(some?.ranges ?? []).map((one) => `${range(one)} for some`)];
  return joined(named, PORTS_MAX, (all.more ?? 0) + (some?.more ?? 0));
}

function joined(parts: string[], max: number, more: number): string {
  const left = Math.max(0, parts.length - max) + more;
  return parts.slice(0, max).join(", ") + (left > 0 ? ` and ${whole(left)} more` : "");
}

/** `5432/tcp`, `8000-8099/udp`, `tcp`, `icmp type 8`, `other protocols`, `everything`, as the command line has it. */
function range({ protocol, first, last }: MatrixRange): string {
  if (first == null || last == null) return protocol === "any" ? "everything" : protocol === "other" ? "other protocols" : protocol;
  if (!protocol.startsWith("icmp")) return `${first === last ? first : `${first}-${last}`}/${protocol}`;
  const [type, code, lastType, lastCode] = [first >> 8, first & 255, last >> 8, last & 255];
  if (type !== lastType) {
    return code === 0 && lastCode === 255 ? `${protocol} types ${type}-${lastType}` : `${protocol} type ${type} code ${code} to type ${lastType} code ${lastCode}`;
  }
  if (code === 0 && lastCode === 255) return `${protocol} type ${type}`;
  return code === lastCode ? `${protocol} type ${type} code ${code}` : `${protocol} type ${type} codes ${code}-${lastCode}`;
}
