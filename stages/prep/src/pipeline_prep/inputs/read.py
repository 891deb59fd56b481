"""Any input of prep, told by its content, as passages and questions."""

from __future__ import annotations

from pathlib import Path

from pipeline.records import sdg
from pipeline.records.sources.beir import is_beir
from pipeline.schemas.prep import PrepConfig
from pipeline_prep.funnel import Funnel
from pipeline_prep.inputs.beir import read_beir
from pipeline_prep.inputs.find import SDG, find_files
from pipeline_prep.inputs.labelled import read_labelled
from pipeline_prep.inputs.sdg_records import convert
from pipeline_prep.questions import Converted


def read_input(path: Path, config: PrepConfig, funnel: Funnel) -> Converted:
    """Records of sdg, labelled pairs, a file `{corpus, data}` or a BEIR folder; a file or a folder of files.

    The same content gives the same ids in the same order, whatever the order of files and records. Every pair that
    cannot be used goes into the funnel.

    Raises:
        PipelineError: nothing is there, a folder mixes formats, or a file is malformed; names the file and the row.
    """
    path = path.expanduser()
    if is_beir(path):
        return read_beir(path, funnel)
    files = find_files(path)
    if files[0].layout == SDG:
        records = (item for file in files for item in sdg.read_file(file.path))
        return convert(records, config.quality_threshold, funnel, config.criterion_minimums, config.drop_unanswerable)
    return read_labelled(files, funnel)
