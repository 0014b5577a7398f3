import type { JSX } from "preact";
import { useNow } from "../lib/hooks";
import { clockOf, tookOf } from "../lib/time";
import { Icon } from "../parts/Icon";
import type { Step } from "./model";

const SPOKEN: Record<Step["status"], string> = { done: "done", current: "now", todo: "to come", failed: "did not finish" };

export function Steps({ steps }: { steps: Step[] }): JSX.Element {
  const now = useNow(1000, steps.some((s) => s.status === "current" && s.name !== "completed"));
  return (
    <ol class="steps" aria-label="Steps of this sign-in">
      {steps.map((s) => (
        <li
          key={s.name}
          class="step"
          data-testid={`step-${s.name}`}
          data-status={s.status}
          aria-current={s.status === "current" ? "step" : undefined}
        >
          <span class="step-mark" aria-hidden="true">
            {s.status === "done" && <Icon name="check" />}
            {s.status === "failed" && <Icon name="cross" />}
          </span>
          <span class="step-label">
            {s.label}
            <span class="sr-only">, {SPOKEN[s.status]}</span>
          </span>
          <span class="step-time">{timeOf(s, now)}</span>
        </li>
      ))}
    </ol>
  );
}

function timeOf(s: Step, now: number): string {
  if (s.from === null || s.name === "completed") return "";
  if (s.to !== null) return tookOf(s.to - s.from);
  return s.status === "current" ? clockOf(now - s.from) : "";
}
