"""The code that pages show, as the tests run it.

A page is run in a copy of the samples, block by block. HTML comments say where that is not enough:
``<!-- not run: REASON -->`` leaves out the block behind it; ``<!-- run first``, lines of bash and ``-->`` make what the
reader has and the samples lack.
"""

import re
from dataclasses import dataclass

from support import ROOT

PAGES = sorted([ROOT / "README.md", *(path for path in ROOT.glob("docs/**/*.md") if "generated" not in path.parts)])
_BLOCK = re.compile(
    r"<!-- run first\n(?P<first>.*?)-->"
    r"|(?:<!-- not run: (?P<reason>[^\n]+?) -->\s*)?^```(?P<language>bash|python)\n(?P<code>.*?)^```",
    re.DOTALL | re.MULTILINE,
)
_JOB = re.compile(r"^\| [^|]+ \| [^|]+ \| `(?P<command>biounet [^`]+)` \|$", re.MULTILINE)
_BUDGET = re.compile(r"(--minutes |\bminutes=)[\d.]+")


@dataclass(frozen=True)
class Block:
    """Code of a page; `reason` says why it is not run, or is empty."""

    language: str
    code: str
    reason: str = ""


def jobs_of(text):
    """Return the command of each row of the tables of jobs, in their order."""
    return [_BUDGET.sub(r"\g<1>0.05", row["command"].replace(r"\|", "|")) for row in _JOB.finditer(text)]


def blocks_of(text):
    """Return the blocks of a page, with budgets for trainings of seconds: what they are worth is measured elsewhere."""
    return [
        Block(one["language"] or "bash", _BUDGET.sub(r"\g<1>0.05", one["code"] or one["first"]), one["reason"] or "")
        for one in _BLOCK.finditer(text)
    ]
