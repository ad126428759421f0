"""Reads lines of {"schema": …, "document": …}; prints for each, as a line, null or why the schema refuses the document."""

import json
import sys

import jsonschema_rs

validators = {}
for line in sys.stdin:
    case = json.loads(line)
    key = json.dumps(case["schema"], sort_keys=True)
    if key not in validators:
        jsonschema_rs.meta.validate(case["schema"])
        validators[key] = jsonschema_rs.validator_for(case["schema"])
    error = next(validators[key].iter_errors(case["document"]), None)
    print(json.dumps(error and f"{'.'.join(map(str, error.instance_path))}: {error.message}"))
