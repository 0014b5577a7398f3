import type { JSX } from "preact";
import { useId } from "preact/hooks";
import { getEgress } from "../api/client";
import type { Egress } from "../api/types";
import { usePolled } from "../api/usePolled";
import { useNow } from "../lib/hooks";
import { followLink } from "../lib/router";
import { agoOf, momentOf } from "../lib/time";
import { Icon } from "../parts/Icon";
import { asSentence } from "./model";

const EVERY_MS = 30_000;

/** WayOut is a line that says where one's own machines leave from. */
export function WayOut({ admin }: { admin: boolean }): JSX.Element | null {
  const { data } = usePolled(getEgress, EVERY_MS);
  const heading = useId();
  if (!data) return null;
  return (
    <section class="way-out" aria-labelledby={heading} data-testid="way-out" data-kind={data.kind} data-state={data.state}>
      <h2 id={heading}>
        <Icon name="globe" />
        Way out
      </h2>
      <p>
        <Words way={data} />
        {data.open && " In use now."}
      </p>
      {admin && (
        <a href="/ways" onClick={followLink}>
          All ways out
        </a>
      )}
      {data.state === "quarantined" && (
        <p class="warn">
          It is out of use until whoever runs this server has looked at it. {asSentence(data.reason ?? "")}
        </p>
      )}
    </section>
  );
}

function Words({ way }: { way: Egress }): JSX.Element {
  const from = way.exit_address && <strong>{way.exit_address}</strong>;
  switch (way.kind) {
    case "direct":
      return <>Your machines leave straight from this server, without a proxy{from && <>: from {from}</>}.</>;
    case "shared":
      return <>Your machines leave through the one way out that all users of this server share{from && <>, from {from}</>}.</>;
    case "port":
      if (!way.port) return <>You are given one of your own when your first machine starts.</>;
      return (
        <>
          Your own, <span class="nowrap">{way.port}</span>. {from ? <>It leaves from {from}</> : "Where it leaves from has not been seen"}
          {from && way.checked_at && <Seen at={way.checked_at} />}.
        </>
      );
  }
}

function Seen({ at }: { at: string }): JSX.Element {
  const now = useNow(10_000);
  return (
    <>
      , last seen{" "}
      <time dateTime={at} title={momentOf(at)}>
        {agoOf(at, now)}
      </time>
    </>
  );
}
