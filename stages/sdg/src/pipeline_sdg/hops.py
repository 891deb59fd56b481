"""Does a multi-hop question need all its hops? A model names the fewest hops that answer it.

Questions that seem to connect several passages can often be answered from one (Min et al. 2019,
https://arxiv.org/abs/1906.02900; Trivedi et al. 2022, https://arxiv.org/abs/2108.00573).
"""

from __future__ import annotations

from typing import Any, Literal

from pipeline_sdg.chunking import Chunk
from pipeline_sdg.endpoints import JUDGE
from pipeline_sdg.exchange import Exchange, Fault
from pipeline_sdg.forms import TEXT, list_of, object_of, whole_number
from pipeline_sdg.judge import shown
from pipeline_sdg.pairs import Pair
from pipeline_sdg.parsing import parse_object
from pipeline_sdg.templates import DEFAULT, Prompts

HopCheck = Literal["keep", "relabel", "drop"]
SINGLE_HOP = "contextual"
"""The query type of a question that turns out to need one hop."""


def exchange(pair: Pair, chunks: list[Chunk], prompts: Prompts = DEFAULT) -> Exchange | None:
    """The request for a multi-hop pair; None where there is nothing to ask: `settled` is then the answer."""
    if settled(pair) is not None:
        return None
    texts = {chunk["chunk_id"]: chunk for chunk in chunks}
    blocks = [
        f"HOP {hop['hop_number']}\n{shown([texts[number] for number in hop['segment_ids'] if number in texts])}"
        for hop in pair["hop_contexts"]
    ]
    prompt = prompts.render("hop", hops="\n\n".join(blocks), question=pair["question"], answer=pair["answer"])
    count = len(blocks)
    return Exchange(
        JUDGE, [{"role": "user", "content": prompt}], schema(count), lambda reply: check(reply, count), wanted=1
    )


def settled(pair: Pair) -> list[int] | None:
    """The hops needed where that is plain without a model: one hop, or hops that all cite the same segments."""
    if pair["query_type"] != "multi_hop" or not pair["hop_contexts"]:
        return []
    return [1] if len({tuple(hop["segment_ids"]) for hop in pair["hop_contexts"]}) == 1 else None


def schema(count: int) -> dict[str, Any]:
    number = {"type": "integer", "enum": list(range(1, count + 1))}
    hop = object_of({"hop_number": number, "adds": TEXT})
    return object_of({"hops": list_of(hop, count, count), "hops_needed": list_of(number, 1, count), "reason": TEXT})


def check(reply: str, count: int) -> tuple[list[list[int]], list[Fault]]:
    """The numbers of the hops needed, ascending, as a list of one; or what is wrong."""
    value = parse_object(reply)
    if value is None:
        return [], [Fault("the answer is not one whole JSON object")]
    listed = value.get("hops_needed")
    numbers = [whole_number(item) for item in listed] if isinstance(listed, list) else []
    if not numbers or any(number not in range(1, count + 1) for number in numbers):
        return [], [Fault(f"hops_needed must list at least one of the hops 1 to {count}, and no other", listed)]
    return [sorted(set(numbers))], []


def apply(pair: Pair, needed: list[int], mode: HopCheck) -> tuple[Pair | None, str]:
    """The pair as the hops needed make it (None: reject it), and what was found ("" if it needs all its hops).

    The pair gets `hops_needed`, the numbers of the hops as it was written. `keep` changes nothing else; `relabel` takes
    away the idle hops, with their segments, and makes a pair of one hop a contextual one; `drop` does the same, but
    rejects pairs of one hop.
    """
    hops = pair["hop_contexts"]
    if not hops:
        return pair, ""
    checked = {**pair, "hops_needed": needed}
    if len(needed) == len(hops) > 1:
        return checked, ""
    found = "one hop answers it" if len(needed) == 1 else f"{len(needed)} of its {len(hops)} hops answer it"
    if mode == "keep":
        return checked, found
    if mode == "drop" and len(needed) == 1:
        return None, found
    return _shortened(checked, [hop for hop in hops if hop["hop_number"] in needed]), found


def _shortened(pair: Pair, hops: list[dict[str, Any]]) -> Pair:
    segments = sorted({number for hop in hops for number in hop["segment_ids"]})
    shorter = {**pair, "segment_ids": segments, "hop_count": len(hops)}
    if len(hops) == 1:
        return {**shorter, "query_type": SINGLE_HOP, "hop_contexts": []}
    return {**shorter, "hop_contexts": [{**hop, "hop_number": number} for number, hop in enumerate(hops, 1)]}
