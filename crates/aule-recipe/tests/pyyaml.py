"""Reads, with PyYAML as cloud-init does, documents and what the merge made of them, and compares.

Standard input: a JSON list of {"parts": [text, ...], "merged": text}. The merge rules are written here a second time, on
the values that PyYAML reads. Prints the first few differences; exits 1 where there are any.
"""
import json
import sys

import yaml


def shape(value):
    """A value with its types, so that True, 1 and 1.0 differ, and the order of keys counts."""
    if isinstance(value, dict):
        return ["map", [[shape(k), shape(v)] for k, v in value.items()]]
    if isinstance(value, list):
        return ["list", [shape(v) for v in value]]
    return [type(value).__name__, repr(value)]


def lists(key, base, over):
    if key == "packages":
        out = []
        for item in base + over:
            if shape(item) not in [shape(o) for o in out]:
                out.append(item)
        return out
    if key == "users":
        out = []
        for user in base + over:
            name = user.get("name") if isinstance(user, dict) else user
            for i, known in enumerate(out):
                known_name = known.get("name") if isinstance(known, dict) else known
                if name is not None and shape(known_name) == shape(name):
                    if isinstance(user, dict):
                        out[i] = nodes(None, known, user)
                    break
            else:
                out.append(user)
        return out
    if key == "write_files":
        out = []
        for file in base + over:
            same = [i for i, known in enumerate(out) if shape(known["path"]) == shape(file["path"])]
            if same and not file.get("append"):
                out[same[0]] = file
                for i in reversed(same[1:]):
                    del out[i]
            else:
                out.append(file)
        return out
    return base + over


def nodes(key, base, over):
    if isinstance(base, dict) and isinstance(over, dict):
        out = dict(base)
        for k, v in over.items():
            out[k] = nodes(None, out[k], v) if k in out else v
        return out
    if isinstance(base, list) and isinstance(over, list):
        return lists(key, base, over)
    return over


def documents(parts):
    out = {}
    for part in parts:
        for key, value in (part or {}).items():
            if key in out:
                out[key] = nodes(key, out[key], value)
            else:
                out[key] = lists(key, [], value) if isinstance(value, list) else value
    return out


def main():
    wrong = 0
    cases = json.load(sys.stdin)
    for number, case in enumerate(cases):
        try:
            expected = shape(documents([yaml.safe_load(part) for part in case["parts"]]))
            found = shape(yaml.safe_load(case["merged"]) or {})
        except Exception as error:  # a parser may fail in any way; each is a difference
            expected, found = "no error", repr(error)
        if expected != found:
            wrong += 1
            if wrong <= 3:
                print(f"case {number}: PyYAML differs")
                for part in case["parts"]:
                    print("--- part\n" + part)
                print("--- merged\n" + case["merged"])
                print(f"--- expected\n{expected}\n--- found\n{found}")
    print(f"{len(cases)} cases, {wrong} wrong")
    sys.exit(1 if wrong else 0)


main()
