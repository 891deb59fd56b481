import tempfile
from pathlib import Path

import docx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipeline_sdg.documents import UNREADABLE, survey
from pipeline_sdg.reading.docx import docx_text
from pipeline_sdg.reading.files import read_file
from pipeline_sdg.reading.html import html_text
from pipeline_sdg.reading.pdf import joined_pages, pdf_text
from pipeline_sdg.reading.rst import rst_text

from pipeline.schemas.sdg import SdgConfig

SCRATCH = Path(tempfile.gettempdir())

PAGE = """<!DOCTYPE html><html><head><title>Install &ndash; Acme</title><style>p{}</style>
<script>var a = "<p>never</p>";</script></head><body><nav><ul><li>Home</li></ul></nav><h1>Install <em>it</em></h1>
<p>First line<br>second. It is <b>easy</b>.</p><ul><li>one<ul><li>deep <a href=x>link</a></li></ul></li>
<li><p>two.</p><p>More of two.</p></li></ul><p>After.</p><ol><li>a<li>b</ol>
<table><thead><tr><th>Key</th><th>Val</th></tr></thead><tr><td>a|b</td><td><p>x<br>y</p><p>z<i>z</i></p></td></tr></table>
<pre><code>def f():
    return <b>1</b>

x</code></pre>Tail text</body></html>"""

PAGE_TEXT = """# Install it

First line second. It is easy.

- one
  - deep link
- two.
  More of two.

After.

1. a
2. b

| Key | Val |
| a\\|b | x y zz |

```
def f():
    return 1

x
```

Tail text"""


def test_html_keeps_what_is_read_and_drops_what_is_not() -> None:
    assert html_text(PAGE) == ("Install – Acme", PAGE_TEXT)


def test_the_main_part_of_a_page_is_its_text() -> None:
    assert html_text("<p>around</p><main><p>inside</p></main><p>around</p>") == ("", "inside")
    assert html_text("<p>around</p><main> </main>") == ("", "around")


def test_an_unclosed_menu_does_not_take_the_page_with_it() -> None:
    assert html_text("<p>one<nav><p>two<script>x") == ("", "one\n\ntwo")
    assert html_text("<p>one<p>1 <2 and <3") == ("", "one\n\n1 <2 and <3")
    assert html_text("<p>one<nav><p>two") == ("", "one\n\ntwo")


@given(
    st.lists(
        st.sampled_from(
            [
                "<p>",
                "</p>",
                "<li>",
                "</ul>",
                "<td>",
                "<pre>",
                "</pre>",
                "<table>",
                "</table>",
                "<h2>",
                "<nav>",
                "</nav>",
                "<main>",
                "<![x",
                "<![CDATA[",
                "&#x;",
                "<tr>",
                "<ul>",
                "</main>",
            ]
        )
    )
)
def test_no_markup_is_too_broken_and_no_word_is_lost(tags: list[str]) -> None:
    kept = [tag for tag in tags if "nav" not in tag and "main" not in tag]
    page = "".join(f"{tag} w{number} " for number, tag in enumerate(kept) if tag not in ("<![x", "<![CDATA[", "&#x;"))
    _, text = html_text(page)
    assert [word for word in text.split() if word.startswith("w")] == [word for word in page.split() if word[0] == "w"]
    html_text("".join(f"{tag} w " for tag in tags))


def test_html_names_its_encoding(tmp_path: Path) -> None:
    page = '<meta http-equiv="Content-Type" content="text/html; charset=iso-8859-2"><p>Zażółć gęślą jaźń</p>'
    (tmp_path / "a.html").write_bytes(page.encode("iso8859_2"))
    config = SdgConfig(corpus_dir=str(tmp_path), file_extensions="html", min_text_length=5)
    assert [item.text for item in survey(config, SCRATCH).documents()] == ["Zażółć gęślą jaźń"]
    assert survey(config, SCRATCH).guessed == [("a.html", "iso-8859-2")]


def test_restructured_text_becomes_headings_code_and_rows() -> None:
    source = """=======
 Guide
=======

Intro with :ref:`the text <target>` and `a link <http://x>`_.

.. a comment
   that goes on

Install
=======

Do this::

    $ pip install x

    $ run

.. code-block:: python
   :linenos:

   def f():
       return 1

.. note:: Careful.
   Very careful.

Linux
-----
+-----+-----+
| a   | b   |
+=====+=====+
| 1   | 2   |
+-----+-----+

=====  ====
Key    Val
=====  ====
a      b c
=====  ====

.. toctree::

   x

Mac
---
text"""
    lines = [line for line in rst_text(source).splitlines() if line.strip()]
    assert lines == [
        *("# Guide", "Intro with the text and a link.", "## Install", "Do this:"),
        *("```", "$ pip install x", "$ run", "```", "```", "def f():", "    return 1", "```"),
        *("Careful.", "Very careful.", "### Linux", "| a   | b   |", "| 1   | 2   |"),
        *("| Key | Val |", "| a | b c |", "### Mac", "text"),
    ]


@given(
    st.lists(
        st.sampled_from(
            ["w1", "====", "----", "  w2", "::", ".. note:: w3", "    w4", "+--+", "| w5 |", "", "== ==", "* w6"]
        )
    )
)
def test_any_restructured_text_is_read_to_its_end(lines: list[str]) -> None:
    words = rst_text("\n".join([*lines, "", "the end"])).split()
    assert words[-2:] == ["the", "end"]


def pdf(path: Path, pages: list[list[str]], title: str = "") -> Path:
    """A PDF file made by hand: one text object a page, a line below the other."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>"]
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(len(pages)))
    objects.append(f"<< /Type /Pages /Count {len(pages)} /Kids [{kids}] >>")
    objects.append("<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
    for number, lines in enumerate(pages):
        shown = "".join(f"({line}) Tj 0 -14 Td\n" for line in lines)
        content = f"BT /F1 12 Tf 50 750 Td\n{shown}ET" if lines else ""
        resources = "<< /Font << /F1 3 0 R >> >>"
        size = "[0 0 612 792]"
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox {size} /Resources {resources} /Contents {5 + 2 * number} 0 R >>"
        )
        objects.append(f"<< /Length {len(content)} >>\nstream\n{content}\nendstream")
    objects.append(f"<< /Title ({title}) >>")
    data, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        offsets.append(len(data))
        data += f"{number} 0 obj\n{body}\nendobj\n".encode("latin-1")
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    trailer = f"<< /Size {len(objects) + 1} /Root 1 0 R /Info {len(objects)} 0 R >>"
    end = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}trailer\n{trailer}\nstartxref\n{len(data)}\n%%EOF"
    path.write_bytes(data + end.encode())
    return path


def test_a_pdf_is_read_over_its_page_breaks(tmp_path: Path) -> None:
    pages = [
        ["Acme manual", "The pump is an exam-", "ple of a machine that", "1"],
        ["Acme manual", "runs for years.", "2"],
        ["Acme manual", "It is loud.", "3"],
    ]
    title, text = pdf_text(pdf(tmp_path / "a.pdf", pages, "The pump"))
    assert title == "The pump"
    assert text == "The pump is an example of a machine that\nruns for years.\n\nIt is loud."


def test_hyphens_of_names_stay_and_few_pages_have_no_running_lines() -> None:
    assert joined_pages([["An X-", "Ray of L-", "401."], ["An X-"]]) == "An X-Ray of L-401.\n\nAn X-"


def test_a_pdf_without_text_or_of_rubbish_is_listed_with_the_reason(tmp_path: Path) -> None:
    pdf(tmp_path / "scan.pdf", [[], []])
    pdf(tmp_path / "good.pdf", [["This page has a sentence that is long enough to be used."]])
    whole = (tmp_path / "good.pdf").read_bytes()
    (tmp_path / "cut.pdf").write_bytes(whole[:300])
    (tmp_path / "none.pdf").write_bytes(b"")
    (tmp_path / "text.docx").write_bytes(b"not a zip file")
    config = SdgConfig(corpus_dir=str(tmp_path), file_extensions="pdf,docx")
    found = survey(config, SCRATCH)
    assert [entry.path for entry in found.entries] == ["good.pdf"]
    reasons = dict(found.left_out[UNREADABLE].examples)
    assert set(reasons) == {"cut.pdf", "none.pdf", "scan.pdf", "text.docx"}
    assert "scanned pages" in reasons["scan.pdf"] and "damaged" in reasons["text.docx"]


def test_a_word_file_is_read_in_the_order_of_the_page(tmp_path: Path) -> None:
    document = docx.Document()
    document.core_properties.title = "The  manual"
    document.add_heading("Install", 1)
    document.add_paragraph("Some text.")
    document.add_paragraph("first", style="List Bullet")
    document.add_paragraph("second", style="List Number")
    table = document.add_table(2, 2)
    for cell, text in zip([*table.rows[0].cells, *table.rows[1].cells], ["Key", "Val", "a|b", "x\ny"], strict=True):
        cell.text = text
    document.add_heading("Linux", 2)
    document.add_paragraph("The end.")
    document.save(str(tmp_path / "a.docx"))
    title, text = docx_text(tmp_path / "a.docx")
    assert title == "The manual"
    assert text == (
        "# Install\n\nSome text.\n\n- first\n- second\n\n| Key | Val |\n| a\\|b | x y |\n\n## Linux\n\nThe end."
    )


def test_a_spanning_cell_of_a_word_table_stands_once(tmp_path: Path) -> None:
    document = docx.Document()
    document.add_paragraph("Manual", style="Title")
    table = document.add_table(1, 3)
    table.cell(0, 0).merge(table.cell(0, 1)).text = "wide"
    table.cell(0, 2).text = "end"
    document.save(str(tmp_path / "a.docx"))
    assert docx_text(tmp_path / "a.docx") == ("Manual", "# Manual\n\n| wide | end |")


@pytest.mark.parametrize("name", ["a.pdf", "a.docx", "a.html", "a.rst", "a.jsonl", "a.csv", "a.md"])
@given(data=st.binary(max_size=64))
def test_no_bytes_make_a_reader_fall_over(tmp_path_factory: pytest.TempPathFactory, name: str, data: bytes) -> None:
    folder = tmp_path_factory.getbasetemp()
    (folder / name).write_bytes(data)
    for item in read_file(folder, name, None):
        assert item.reason if hasattr(item, "reason") else isinstance(item.document.text, str)
