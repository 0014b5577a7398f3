import { createContext } from "preact";
import { useContext } from "preact/hooks";
import type { Me } from "./types";

/** Myself is who is signed in, and to what kind of server. */
export const Myself = createContext<Me>({ id: "", name: "", admin: false, connect: false, version: "" });

export function useMe(): Me {
  return useContext(Myself);
}
