import type { JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";

/** Log is the tool's own output, which the server has redacted. */
export function Log({ lines, title }: { lines: string[]; title: string }): JSX.Element {
  const box = useRef<HTMLPreElement>(null);
  useEffect(() => {
    const el = box.current;
    if (el) el.scrollTop = el.scrollHeight;
  }, [lines]);
  return (
    <details class="fold" data-testid="log">
      <summary>
        What {title} itself says <span class="count">{lines.length}</span>
      </summary>
      <pre ref={box} class="log" tabIndex={0} aria-label="The tool's output">
        {lines.length > 0 ? lines.join("\n") : "Nothing so far."}
      </pre>
    </details>
  );
}
