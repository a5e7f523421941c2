"""What was checked, and how it came out."""

import sys
import time
import traceback


class Failed(Exception):
    """What a check found to be otherwise."""


class Report:
    """Runs checks one after the other and keeps the results."""

    def __init__(self):
        self.rows = []
        self.figures = []

    def run(self, check, *arguments):
        """Runs one check. Its name is the first line of its docstring; what it returns is said beside the result."""
        name = check.__doc__.strip().splitlines()[0].rstrip(".")
        begun = time.monotonic()
        note, ok = "", False
        try:
            note = check(*arguments) or ""
            ok = True
        except Failed as failure:
            note = str(failure)
        except Exception as failure:  # a broken check is a failed one, and the others still count
            traceback.print_exc()
            note = f"{type(failure).__name__}: {failure}"
        self.rows.append((name, ok, note, time.monotonic() - begun))
        print(f"{'ok    ' if ok else 'FAILED'}  {name}{': ' if note else ''}{note}", flush=True)
        return ok

    def figure(self, name, value):
        """A number to be printed, not judged."""
        self.figures.append((name, value))
        print(f"        {name}: {value}", flush=True)

    def finish(self):
        """Prints the table and the last line; the exit code."""
        passed = sum(ok for _, ok, _, _ in self.rows)
        failed = len(self.rows) - passed
        print("\nfigures")
        for name, value in self.figures:
            print(f"  {name:<64} {value}")
        print("\nchecks")
        for name, ok, note, seconds in self.rows:
            print(f"  {'ok    ' if ok else 'FAILED'} {seconds:6.1f} s  {name}{'' if ok else ': ' + note}")
        print(f"\n{passed} passed, {failed} failed", flush=True)
        return 1 if failed or not passed else 0


def say(text):
    print(f"        {text}", file=sys.stdout, flush=True)


def expect(condition, message):
    if not condition:
        raise Failed(message)


def until(what, condition, seconds=60, every=0.2):
    """Polls until the condition gives something true, which is returned."""
    deadline = time.monotonic() + seconds
    last = None
    while True:
        try:
            value = condition()
            if value:
                return value
            last = value
        except (OSError, LookupError, ValueError) as failure:
            last = failure
        if time.monotonic() > deadline:
            raise Failed(f"not within {seconds} s: {what}" + (f" (last: {last})" if last else ""))
        time.sleep(every)


def some(items, limit=5):
    """A few of many, for a message."""
    items = sorted(items, key=str)
    return ", ".join(map(str, items[:limit])) + (f" and {len(items) - limit} more" if len(items) > limit else "")
