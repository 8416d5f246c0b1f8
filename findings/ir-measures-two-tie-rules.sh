#!/usr/bin/env bash
# Within one call, ir_measures ranks documents of equal score by two opposite rules.
# RR, AP, P@k and nDCG@k use trec_eval's rule: the greater document id comes first.
# RR@k uses the rule of the MS MARCO script: the smaller document id comes first.
# This affects runs with equal scores, which come from short sparse vectors, BM25 over short texts,
# or rounded or fused scores.
# A table can then show RR@1 = 1.0 beside P@1 = 0.0, which no single ranking can give.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet ir_measures==0.4.3 pytrec-eval-terrier==0.5.11 ||
  { echo "The packages could not be installed: nothing was tried." >&2; exit 2; }
venv/bin/python - <<'PY'
import sys
from importlib.metadata import version

import ir_measures
from ir_measures import RR, P, nDCG

MEASURES = [RR, RR @ 10, RR @ 1, P @ 1, nDCG @ 10]
judged = {"question": {"a": 1}}


def measured(run):
    found = ir_measures.calc_aggregate(MEASURES, judged, {"question": run})
    return {str(measure): round(found[measure], 3) for measure in MEASURES}


tied = measured({"a": 1.0, "b": 1.0, "c": 1.0})
untied = measured({"a": 0.8, "b": 0.9, "c": 1.0})
print("ir_measures", version("ir_measures"), "pytrec-eval-terrier", version("pytrec-eval-terrier"))
print("Seen: three documents of equal score are ranked a, b, c for RR@10 and c, b, a for RR, P@1 and nDCG@10.")
print('Expected: the documentation says of RR "an optional cutoff can be provided to limit the depth explored".')
print("  With three documents, a cutoff of 10 limits nothing, so RR@10 should equal RR.")
print("  If only one document is relevant, RR@1 should equal P@1.")
print("equal scores:  ", tied)
print("unequal scores:", untied)
as_described = tied["RR@10"] == tied["RR@1"] == 1.0 and tied["RR"] == 0.333 and tied["P@1"] == 0.0
as_described = as_described and untied["RR"] == untied["RR@10"] == 0.333
print("As described." if as_described else "It has changed.")
sys.exit(0 if as_described else 1)
PY
