"""JUnit XML for CI systems. A test in the file is a check of a cell, with its duration."""

from __future__ import annotations

import re
from xml.etree import ElementTree as Tree

from harness.output.printing import visible
from harness.report.inputs import CheckRun
from harness.results.cell import CellResult
from harness.results.findings import BROKEN, PASSING, Finding

# Characters that XML 1.0 cannot contain, not even escaped.
_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
MARK = "backend-comparison-harness"


def junit(check: CheckRun) -> str:
    """Return the results as JUnit XML. The names of tests contain the backend, so that a CI system
    can merge the files of several backends."""
    root = Tree.Element("testsuites", name=MARK)
    for backend in dict.fromkeys(cell.backend for cell in check.cells):
        results = [r for cell, r in check.cells.items() if cell.backend == backend]
        findings = [(r, f) for r in results for f in r.findings]
        verdicts = [finding.verdict for _, finding in findings]
        suite = Tree.SubElement(
            root,
            "testsuite",
            name=_make_legal(backend),
            tests=str(len(findings)),
            failures=str(verdicts.count("differ")),
            errors=str(sum(verdict in BROKEN for verdict in verdicts)),
            skipped=str(sum(v in PASSING and v != "agree" for v in verdicts)),
            time=f"{sum(result.seconds for result in results):.3f}",
            timestamp=_make_legal(check.started.removesuffix("Z")),
        )
        for result, finding in findings:
            _add_case(suite, result, finding)
    if check.records.stopped:
        _add_unfinished(root, check)
    Tree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + Tree.tostring(root, "unicode") + "\n"


def _add_unfinished(root: Tree.Element, check: CheckRun) -> None:
    """Add an error to the XML if the run was interrupted. Without this error, a CI system would
    show the run as passed if all finished cells agree."""
    counts = {"tests": "1", "failures": "0", "errors": "1", "skipped": "0", "time": "0.000"}
    suite = Tree.SubElement(root, "testsuite", {"name": "run", **counts})
    case = Tree.SubElement(suite, "testcase", classname="run", name="ended", time="0.000")
    found = Tree.SubElement(
        case, "error", message=_make_legal(f"the run was {check.records.stopped}")
    )
    found.set("type", "stopped")
    found.text = (
        _make_legal("\n".join(f"{cell}: cut off" for cell in check.records.cut_off)) or None
    )


def _add_case(suite: Tree.Element, result: CellResult, finding: Finding) -> None:
    cell = result.cell
    case = Tree.SubElement(
        suite,
        "testcase",
        classname=_make_legal(f"{cell.backend}.{cell.spec}"),
        name=_make_legal(f"{finding.check}[{cell.dtype}-{cell.path}-{cell.device}]"),
        time=f"{finding.seconds:.3f}",
    )
    if result.remembered:
        known = Tree.SubElement(case, "properties")
        Tree.SubElement(known, "property", name="kept_from", value=_make_legal(result.since))
    if finding.verdict == "agree":
        return
    kind = "skipped" if finding.verdict in PASSING else "error"
    kind = "failure" if finding.verdict == "differ" else kind
    message = _make_legal(finding.detail or finding.verdict)
    found = Tree.SubElement(case, kind, message=message, type=finding.verdict)
    found.text = _make_legal("\n".join(filter(None, (result.location, finding.traceback)))) or None


def _make_legal(text: str) -> str:
    """Replace control characters by visible text, and characters that are illegal in XML by other
    characters."""
    return _ILLEGAL.sub("\N{REPLACEMENT CHARACTER}", visible(text))
