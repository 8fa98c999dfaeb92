// The form that deploys an app: what was typed, as the API's object and as the command that does the same.

import type { Fault } from "../api/client";
import type { Port, Problem } from "../api/types";

export interface Typed {
  image: string;
  name: string;
  namespace: string;
  replicas: string;
  ports: string;
  service: string;
}

export type Field = keyof Typed | "other";

export const EMPTY: Typed = { image: "", name: "", namespace: "default", replicas: "1", ports: "", service: "" };

const list = (text: string): string[] => text.split(/[\s,]+/).filter((part) => part !== "");

/** `HOST:CONTAINER[/udp]`, or `PORT` for the same on both sides. */
function port(text: string): Port | string {
  const match = /^(?:(\d{1,5}):)?(\d{1,5})(?:\/(tcp|udp))?$/.exec(text.toLowerCase());
  const inside = Number(match?.[2]);
  const outside = Number(match?.[1] ?? match?.[2]);
  if (!match || inside > 65_535 || outside > 65_535) return `${text} is not HOST:CONTAINER, such as 8080:80 or 5353:53/udp`;
  return { hostPort: outside, containerPort: inside, protocol: match[3] === "udp" ? "udp" : "tcp" };
}

/** The body of the request, or what cannot be read of the form. */
export function bodyOf(typed: Typed): { body: unknown } | { faults: Map<Field, string> } {
  const faults = new Map<Field, string>();
  const ports: Port[] = [];
  for (const text of list(typed.ports)) {
    const read = port(text);
    if (typeof read === "string") faults.set("ports", read);
    else ports.push(read);
  }
  if (!/^\d+$/.test(typed.replicas.trim())) faults.set("replicas", "how many: a whole number");
  if (faults.size > 0) return { faults };
  return {
    body: {
      metadata: { name: typed.name.trim(), namespace: typed.namespace.trim() },
      spec: {
        replicas: Number(typed.replicas),
        hostnames: list(typed.service),
        template: { containers: [{ image: typed.image.trim(), ports }] },
      },
    },
  };
}

/** At which field of the form the API's field is. */
function fieldOf(path: string): Field {
  if (path.startsWith("metadata.namespace") || path === "namespace") return "namespace";
  if (path.startsWith("metadata.name")) return "name";
  if (path.startsWith("spec.replicas")) return "replicas";
  if (path.startsWith("spec.hostnames")) return "service";
  if (path.includes(".image")) return "image";
  if (path.includes(".ports")) return "ports";
  return "other";
}

/** The API's faults at the fields where they belong. */
export function faultsOf(fault: Fault): Map<Field, string> {
  const one: Problem = { code: fault.code, field: fault.field ?? "", message: fault.message, hint: fault.hint };
  const faults = new Map<Field, string>();
  for (const problem of fault.problems.length > 0 ? fault.problems : [one]) {
    const field = fieldOf(problem.field ?? "");
    const text = problem.hint ? `${problem.message}: ${problem.hint}` : problem.message;
    faults.set(field, [faults.get(field), `${text} (${problem.code})`].filter(Boolean).join("; "));
  }
  return faults;
}

/** The command that does the same. */
export function commandOf(typed: Typed): string {
  const quoted = (word: string) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`);
  const parts = ["hivemind app deploy", `--name ${quoted(typed.name.trim() || "NAME")}`];
  parts.push(`--image ${quoted(typed.image.trim() || "IMAGE")}`);
  const namespace = typed.namespace.trim();
  if (namespace !== "" && namespace !== "default") parts.push(`--namespace ${quoted(namespace)}`);
  if (typed.replicas.trim() !== "1") parts.push(`--replicas ${quoted(typed.replicas.trim())}`);
  for (const name of list(typed.service)) parts.push(`--service ${quoted(name)}`);
  for (const each of list(typed.ports)) parts.push(`--port ${quoted(each)}`);
  return parts.join(" ");
}
