// The API's objects, by the names that the rest of the page uses; `schema.d.ts` is made from the API's own description.

import type { components } from "./schema";

type Schemas = components["schemas"];

export type ApiError = Schemas["ApiError"];
export type App = Schemas["App"];
export type ClusterPeer = Schemas["ClusterPeer"];
export type ClusterProtocol = Schemas["ClusterProtocol"];
export type ExtendedPeer = Schemas["ExtendedPeer"];
export type Flow = Schemas["Flow"];
export type FlowEnd = Schemas["FlowEnd"];
export type FlowLine = Schemas["FlowLine"];
export type FlowVerdict = Schemas["FlowVerdict"];
export type IcmpMessage = Schemas["IcmpMessage"];
export type KindLine = Schemas["KindLine"];
export type LabelSelector = Schemas["LabelSelector"];
export type MatrixOpen = Schemas["MatrixOpen"];
export type MatrixPair = Schemas["MatrixPair"];
export type MatrixPorts = Schemas["MatrixPorts"];
export type MatrixRange = Schemas["MatrixRange"];
export type MatrixUse = Schemas["MatrixUse"];
export type Metadata = Schemas["Metadata"];
export type NetworkPolicy = Extract<Schemas["WatchLine_NetworkPolicy"], { type: "added" }>["object"];
export type PolicyMatrix = Schemas["PolicyMatrix"];
export type PolicyPeer = Schemas["PolicyPeer"];
export type PolicyPort = Schemas["PolicyPort"];
export type Port = Schemas["Port"];
export type Problem = Schemas["Problem"];
export type Replica = Schemas["Replica"];
export type RuleRef = Schemas["RuleRef"];
export type Service = Schemas["Service"];
export type Session = Schemas["Session"];
export type Status = Schemas["Status"];
export type TrafficCount = Schemas["TrafficCount"];

/** The last line of a stream that cannot go on. */
export interface ErrorLine {
  type: "error";
  error: ApiError;
}
