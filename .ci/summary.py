"""Print the skips of some pytest runs by reason, and the totals as the last line."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree


def main(paths: list[str]) -> int:
    """Read junit files; those that are missing belong to stages that did not run."""
    reasons: Counter[str] = Counter()
    passed = failed = 0
    for path in paths:
        if not Path(path).exists():
            continue
        for case in ElementTree.parse(path).iter("testcase"):
            skip = case.find("skipped")
            if skip is not None:
                reasons[skip.get("message", "no reason")] += 1
            elif case.find("failure") is not None or case.find("error") is not None:
                failed += 1
            else:
                passed += 1
    print("\n== skips by reason")
    for reason, count in reasons.most_common():
        print(f"{count:6}  {reason}")
    print(f"\n{passed} passed, {failed} failed, {sum(reasons.values())} skipped")
    return 0 if passed and not failed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
