// The names of the API's types, generated from api/openapi.yaml.
import type { components } from "./schema";

type Schemas = components["schemas"];

export type Session = Schemas["Session"];
export type SessionState = Schemas["SessionState"];
export type SessionList = Schemas["SessionList"];
export type SessionEvent = Schemas["Event"];
export type Provider = Schemas["Provider"];
export type Credential = Schemas["Credential"];
export type Machine = Schemas["Machine"];
export type Me = Schemas["Me"];
export type Egress = Schemas["Egress"];
export type Port = Schemas["Port"];
export type PortList = Schemas["PortList"];
export type PortReport = Schemas["PortReport"];
export type PortState = Schemas["PortState"];
export type Refusal = Schemas["Refusal"];
export type WebRTC = Schemas["WebRTC"];
export type WebRTCParting = Schemas["WebRTCParting"];
export type Ticket = Schemas["Ticket"];
export type Problem = Schemas["Problem"];
export type ProblemCode = Schemas["ProblemCode"];
