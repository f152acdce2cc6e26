#!/usr/bin/env python3
"""Checks that comments are written in plain words, and that commit subjects are short.

  scripts/check_words.py               fails over a limit, and prints each line that counts against it
  scripts/check_words.py --all         prints also the lines of folders that keep their limit
  scripts/check_words.py --self-test   checks this script

A line is printed as `file:line: problem: comment`. Code in backticks and in code blocks is not read.
"""

import collections
import os
import re
import subprocess
import sys

# Most words of the list below in 1,000 words of comments, by top folder. src is held folder by folder.
LIMITS = {"src": 2, "scripts": 2, "tests": 6, "benches": 6}
# Folders whose doc comments are checked as well: at least this many words, and no question word first.
DOCUMENTED = {"src", "scripts"}
DOC_WORDS = 3
# Longest commit subject, in characters, for the commits since the last tag (or since this rule), at most so many.
SUBJECT_LENGTH = 72
SUBJECTS_SINCE = "7fab458840110fe019d9a900019640bc541b389a"
SUBJECTS = 50

# Words that make a reader stop, each with words to use instead.
WORDS = {
    r"stands?|standing|stood": "is, has, appears",
    r"says?|saying|said": "contains, returns, requires, reports",
    r"tells?|telling|told": "reports, distinguishes, receives",
    r"whoever|whomever|whichever": "name the noun: a client, a token, a route",
    r"(?:some|no|any|every)body": "name the noun: a client, an operator",
    r"elsewhere|somewhere": "name the place",
    r"besides?|anew|likewise|lest": "next to, again, also, so that not",
    r"hence|whence|thence|there(?:of|in|upon)|where(?:of|in|upon)|here(?:of|in|tofore)": "so, from, of it, in it",
    r"what (?:is|was|it|a|an)|that which": "name the noun: the value, the field, the request",
    r"(?:of|by|to) which": "a sentence of its own",
    r"be it|as it were|so many|none of": "whether, a number, no",
    r"on the way|go(?:es)? on|(?:to be|is) had": "while, continue, available",
    r"believ(?:e|es|ed)": "trust, accept, verify",
}
PATTERN = re.compile(rf"\b(?:{'|'.join(WORDS)})\b", re.IGNORECASE)
QUESTION = re.compile(r"(?:what|how|who|whom|whose|where|why|when|which|whether|so many|the same)\b", re.IGNORECASE)
COMMENT = re.compile(r"^\s*(//[/!]?)(?!/)(.*)|[;,{})\]]\s*(//) (.*)")

Problem = collections.namedtuple("Problem", "place name text")


class Group:
    """Comments of one folder."""

    def __init__(self):
        self.words, self.found, self.docs = 0, [], []

    def rate(self):
        return 1000 * len(self.found) / max(self.words, 1)


def comments(lines):
    """Yields (line number, marker, text) of each comment outside code blocks."""
    is_code = False
    for number, line in enumerate(lines, 1):
        match = COMMENT.search(line)
        if not match:
            is_code = False
            continue
        marker, text = (match[1], match[2]) if match[1] else (match[3], match[4])
        if text.strip().startswith("```"):
            is_code = not is_code
        elif not is_code:
            yield number, marker, text.strip()


def blocks(found):
    """Joins the lines of each doc comment; yields (line number, text)."""
    first = last = 0
    marker, text = None, ""
    for number, kind, line in [*found, (0, None, "")]:
        if marker and (number != last + 1 or kind != marker):
            yield first, text
            marker, text = None, ""
        if kind in ("///", "//!"):
            if marker is None:
                first, marker = number, kind
            text, last = f"{text} {line}".strip(), number


def read(path, lines, group, is_documented):
    """Adds the comments of a file to its folder's group."""
    found = list(comments(lines))
    for number, _, text in found:
        group.words += len(text.split())
        for match in PATTERN.finditer(re.sub(r"`[^`]*`", "", text)):
            group.found.append(Problem(f"{path}:{number}", match[0], text))
    for number, text in blocks(found) if is_documented else ():
        if len(text.split()) < DOC_WORDS:
            group.docs.append(Problem(f"{path}:{number}", f"doc of fewer than {DOC_WORDS} words", text))
        elif match := QUESTION.match(text):
            group.docs.append(Problem(f"{path}:{number}", f"doc that opens with `{match[0]}`", text))


def folder_of(path):
    """Returns the folder that a file counts for: src/NAME below src, else the top folder."""
    parts = path.split(os.sep)
    return "/".join(parts[:2]) if parts[0] == "src" and len(parts) > 2 else parts[0]


def groups():
    found = collections.defaultdict(Group)
    for top in LIMITS:
        for folder, _, names in sorted(os.walk(top)):
            for path in (os.path.join(folder, name) for name in sorted(names) if name.endswith(".rs")):
                with open(path, encoding="utf-8") as file:
                    read(path, file, found[folder_of(path)], top in DOCUMENTED)
    return found


def git(*arguments):
    done = subprocess.run(["git", *arguments], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None


def long_subjects():
    """Yields the commits whose subject is too long; none outside a repository."""
    since = git("describe", "--tags", "--abbrev=0") or SUBJECTS_SINCE
    known = [f"{since}..HEAD"] if git("rev-parse", "--verify", "--quiet", f"{since}^{{commit}}") else ["HEAD"]
    for line in (git("log", "--no-merges", f"-{SUBJECTS}", "--format=%h %s", *known) or "").splitlines():
        commit, _, subject = line.partition(" ")
        if len(subject) > SUBJECT_LENGTH:
            yield Problem(f"commit {commit}", f"subject of {len(subject)} characters, at most {SUBJECT_LENGTH}", subject)


def advice(problem):
    words = next((better for word, better in WORDS.items() if re.fullmatch(word, problem.name, re.IGNORECASE)), None)
    return f"{problem.place}: {problem.name}{f' (better: {words})' if words else ''}: {problem.text}"


def report(found, subjects, shows_all):
    """Prints the problems and a line for each folder over its limit; returns whether there is none."""
    is_good = not subjects
    problems = list(subjects)
    for folder, group in sorted(found.items()):
        limit = LIMITS[folder.split("/")[0]]
        is_over = group.rate() > limit
        is_good = is_good and not is_over and not group.docs
        problems += group.docs + (group.found if is_over or shows_all else [])
        if is_over or shows_all:
            print(f"{folder}: {group.rate():.1f} of the listed words in 1,000 words of comments, at most {limit}", file=sys.stderr)
    for problem in problems:
        print(advice(problem), file=sys.stderr)
    total = sum(group.words for group in found.values())
    print(f"words: {'ok' if is_good else 'FAILED'}, {total} words of comments, {len(problems)} lines to mend")
    return is_good


FIXTURE = '''
//! What stands here opens with a question word.
/// Where.
fn a() {} // a `said` in backticks does not count, but told does
/// Returns the sum. Nobody reads
/// the second line elsewhere.
///
/// ```
/// what_is(); // says nothing
/// ```
let url = "http://stands.example"; /* tells */
//// said in a rule of slashes
// Instead of hence and thus: so.
/// Trusted key.
'''


def self_test():
    group = Group()
    read("f.rs", FIXTURE.splitlines(), group, True)
    found = [(problem.place, problem.name) for problem in group.found]
    docs = [(problem.place, problem.name) for problem in group.docs]
    assert found == [("f.rs:2", "stands"), ("f.rs:4", "told"), ("f.rs:5", "Nobody"), ("f.rs:6", "elsewhere"),
                     ("f.rs:13", "hence")], found
    assert docs == [("f.rs:2", "doc that opens with `What`"), ("f.rs:3", "doc of fewer than 3 words"),
                    ("f.rs:14", "doc of fewer than 3 words")], docs
    assert folder_of("src/bin/callbound/main.rs") == "src/bin" and folder_of("src/lib.rs") == "src"
    assert folder_of("tests/support/mod.rs") == "tests"
    assert advice(Problem("f.rs:4", "told", "x")) == "f.rs:4: told (better: reports, distinguishes, receives): x"


def main():
    os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
    if sys.argv[1:] == ["--self-test"]:
        return self_test()
    if sys.argv[1:] not in ([], ["--all"]):
        sys.exit(__doc__)
    sys.exit(not report(groups(), list(long_subjects()), "--all" in sys.argv))


if __name__ == "__main__":
    main()
