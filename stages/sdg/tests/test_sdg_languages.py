"""The checks of pairs in other languages and scripts: good pairs pass, broken ones still do not."""

import json

import pytest
from pipeline_sdg import pairs
from pipeline_sdg.chunking import Passage, Window
from pipeline_sdg.pairs import PairRules

RULES = PairRules(1, {"contextual": 1}, {"factual": 1})
GOOD = {
    "zh": ("网关的空闲超时是多少分钟？", "空闲超时为三十分钟。", "如果三十分钟没有活动，网关会断开会话。"),
    "ja": (
        "ゲートウェイのアイドルタイムアウトは何分ですか？",
        "三十分です。",
        "操作がない場合、ゲートウェイは三十分後に切断します。",
    ),
    "ko": (
        "게이트웨이는 언제 세션을 종료합니까?",
        "30분 동안 활동이 없으면 종료합니다.",
        "30분 동안 활동이 없으면 게이트웨이가 연결을 끊습니다.",
    ),
    "hi": (
        "गेटवे कितने समय बाद सत्र बंद करता है?",
        "गेटवे तीस मिनट बाद सत्र बंद करता है।",
        "अगर कोई गतिविधि नहीं है, तो गेटवे तीस मिनट बाद कनेक्शन काट देता है।",
    ),
    "el": (
        "Πότε κλείνει η πύλη τη συνεδρία;",
        "Μετά από τριάντα λεπτά αδράνειας.",
        "Η πύλη τερματίζει κάθε σύνδεση ύστερα από τριάντα λεπτά χωρίς κίνηση.",
    ),
    "th": (
        "เกตเวย์จะปิดเซสชันเมื่อใด",
        "หลังจากไม่มีการใช้งาน 30 นาที",
        "ถ้าไม่มีกิจกรรม เกตเวย์จะตัดการเชื่อมต่อหลัง 30 นาที",
    ),
    "ar": (
        "كم دقيقة تنتظر البوابة قبل إغلاق الجلسة؟",
        "تنتظر ثلاثين دقيقة.",
        "تغلق البوابة الاتصال بعد ثلاثين دقيقة من الخمول.",
    ),
    "he": (
        "כמה דקות השער ממתין לפני סגירת החיבור?",
        "השער ממתין שלושים דקות.",
        "לאחר שלושים דקות ללא פעילות השער מנתק.",
    ),
    "ru": (
        "Через сколько минут шлюз закрывает сеанс?",
        "Через тридцать минут простоя.",
        "Если тридцать минут нет активности, шлюз разрывает соединение.",
    ),
    "de": (
        "Was geschieht am 5. Mai mit einer Sitzung des Gateways?",
        "Sie wird nach 30 Minuten getrennt.",
        "Ab dem 5. Mai trennt das Gateway jede Sitzung, wenn 30 Minuten lang nichts geschieht.",
    ),
}


def problem(question: str, answer: str, text: str) -> str | None:
    chunk = {"chunk_id": 1, "text": text, "title": ""}
    item = {
        "question": question,
        "answer": answer,
        "question_complexity": 3,
        "query_type": "contextual",
        "reasoning_type": "factual",
        "segment_ids": [1],
        "hop_count": 1,
        "hop_contexts": [],
    }
    reply = json.dumps({"pairs": [item]})
    good, faults = pairs.check(reply, Window("a.md", "", 0, (Passage(chunk, (text,)),)), RULES)
    assert len(good) + len(faults) == 1
    return faults[0].reason if faults else None


@pytest.mark.parametrize("pair", GOOD.values(), ids=GOOD)
def test_a_good_pair_passes_in_its_script(pair: tuple[str, str, str]) -> None:
    assert problem(*pair) is None


@pytest.mark.parametrize(
    ("language", "question", "answer", "reason"),
    [
        ("zh", "网关？", None, "is too short"),
        ("zh", None, "空闲超时为", "the answer breaks off"),
        ("ja", None, "三十七 37 分です。", "the answer has what the cited segments [1] do not: 37"),
        ("hi", None, "गेटवे तीस मिनट बाद", "the answer breaks off"),
        ("th", "เกต", None, "is too short"),
        ("de", "Wann trennt das Gateway die Sitzung", None, "the question breaks off"),
        ("de", None, "Nach 30 Minuten;", "the answer breaks off"),
        ("ru", None, "Через тридцать минут", "the answer breaks off"),
    ],
)
def test_a_broken_pair_does_not(language: str, question: str | None, answer: str | None, reason: str) -> None:
    good_question, good_answer, text = GOOD[language]
    assert reason in (problem(question or good_question, answer or good_answer, text) or "")
