import { createContext } from "preact";
import { useContext } from "preact/hooks";
import type { Provider } from "./types";

/** Providers is what one can sign in to; it does not change while the server
 * runs, so that the page asks once. */
export const Providers = createContext<Provider[]>([]);

export function useProviders(): Provider[] {
  return useContext(Providers);
}

/** titleOf is a provider's name for people, or its plain name when the server
 * does not know it any more. */
export function titleOf(providers: Provider[], name: string | undefined): string {
  return providers.find((p) => p.name === name)?.title ?? name ?? "";
}
