// What an app or a replica does, in a word and a colour.

import type { App, Replica } from "../api/types";
import { many } from "./format";

export type Tone = "good" | "busy" | "bad" | "idle";

export interface Condition {
  tone: Tone;
  text: string;
}

export function conditionOf(app: App): Condition {
  const { metadata, spec, status } = app;
  const wanted = spec.replicas ?? 1;
  const ready = status?.readyReplicas ?? 0;
  const succeeded = status?.succeededReplicas ?? 0;
  if (metadata.deletionTimestamp) return { tone: "busy", text: "Deleting" };
  if ((status?.failedReplicas ?? 0) > 0) return { tone: "bad", text: "Failed" };
  if (status?.problem?.code === "HM0412") return { tone: "busy", text: "Waiting for others" };
  if (status?.problem) return { tone: "bad", text: "Not up" };
  const settled = status?.observedGeneration === metadata.generation && (status?.replicas ?? 0) === wanted;
  if (settled && wanted === 0) return { tone: "idle", text: "Stopped" };
  if (settled && (status?.updatedReplicas ?? 0) < wanted) return { tone: "busy", text: "Updating" };
  if (settled && succeeded === wanted) return { tone: "good", text: "Completed" };
  if (settled && ready + succeeded === wanted) return { tone: "good", text: "Up" };
  if ((status?.replicas ?? 0) > wanted) return { tone: "busy", text: "Scaling down" };
  return { tone: "busy", text: ready === 0 ? "Starting" : "Scaling up" };
}

export function conditionOfReplica(replica: Replica): Condition {
  const { status } = replica;
  const phase = status?.phase ?? "Pending";
  if (replica.metadata.deletionTimestamp || phase === "Stopping") return { tone: "busy", text: "Stopping" };
  if (phase === "Backoff") return { tone: "bad", text: "Waiting to try again" };
  if (phase === "Succeeded") return { tone: "good", text: "Completed" };
  if (phase === "Failed") return { tone: "bad", text: "Failed" };
  if (phase === "Running" && !status?.ready && status?.problem) return { tone: "bad", text: "Not well" };
  if (phase === "Running") return status?.ready ? { tone: "good", text: "Ready" } : { tone: "busy", text: "Running" };
  if (phase === "Pulling" && status?.pull?.totalBytes) {
    const part = Math.floor((100 * status.pull.doneBytes) / status.pull.totalBytes);
    return { tone: "busy", text: `Pulling ${part}%` };
  }
  return { tone: "busy", text: phase };
}

/** How a replica's container ended last. */
export function lastExit(replica: Replica): string {
  const exit = replica.status?.lastExit;
  if (!exit) return "";
  if (exit.outOfMemory) return "ran out of memory";
  return exit.code > 128 ? `ended by signal ${exit.code - 128}` : `exit code ${exit.code}`;
}

/** What goes when an app is deleted. */
export function lossOf(app: App): string {
  const parts = [many(app.status?.replicas ?? app.spec.replicas ?? 0, "replica")];
  parts.push("its service and names");
  const ports = app.spec.template.containers.flatMap((container) => container.ports ?? []);
  if (ports.length > 0) parts.push(`published ${ports.length === 1 ? "port" : "ports"} ${ports.map((p) => p.hostPort).join(", ")}`);
  return `${parts.slice(0, -1).join(", ")} and ${parts.at(-1) ?? ""} go. Volumes stay.`;
}
