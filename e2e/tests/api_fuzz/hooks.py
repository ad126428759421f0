"""Lets most of the requests be about something that is there: names in paths are made up otherwise."""

import schemathesis

KNOWN = ["checkout", "edge", "web"]


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    name = (path_parameters or {}).get("name")
    if isinstance(name, str) and len(name) % 4:
        path_parameters["name"] = KNOWN[sum(name.encode()) % len(KNOWN)]
    return path_parameters
