#!/usr/bin/env python3
"""Write src/number/tables.rs: which numbers are emergency, which cost extra.

    scripts/gen_numbers.py            regenerate the table
    scripts/gen_numbers.py --check    fail if the committed table is not what this script writes

The facts come from libphonenumber's metadata (Apache-2.0) as packaged in the PyPI package
`phonenumbers`, at exactly the version pinned below: the same script and the same pin always write the
same bytes. The package is taken from a folder under .tools/ (put there with pip on first use), so nothing is
installed into the system's Python.

To follow a new metadata release: change PACKAGE_VERSION, run the script, read the diff.
"""

import argparse
import functools
import importlib
import itertools
import random
import re
import subprocess
import sys
from pathlib import Path

try:
    import re._parser as regex_parser  # Python 3.11 and later
except ImportError:
    import sre_parse as regex_parser  # its older name

PACKAGE_VERSION = "9.0.43"

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "src/number/tables.rs"
# Ignored by git, and kept by `cargo clean`.
TOOLS = ROOT / ".tools" / f"phonenumbers-{PACKAGE_VERSION}"

# libphonenumber files these under `expandedEmergency` (crisis lines, test calls), a class that its
# compiled metadata and every port built from it leave out. They reach people in an emergency all the
# same: 933 reads back the address the emergency centre would see, 988 is the suicide and crisis line.
EXPANDED_EMERGENCY = {"US": ["933", "988"], "CA": ["988"]}

# Networks without a country, refused whole and not only where metadata knows a subscriber range: nobody
# there is a local call away and the unlisted rest is what toll fraud rents.
WHOLE_NETWORKS = {
    "808": "international shared cost",
    "870": "Inmarsat satellites",
    "878": "universal personal telecommunications (UPT)",
    "881": "satellite mobile (Iridium, Globalstar)",
    "882": "international networks",
    "883": "international networks",
    "979": "international premium rate",
}

# ITU-T E.164: at most 15 digits, country code included. Metadata patterns for Germany allow 16, which
# can never be a canonical number here.
MAX_DIGITS = 15
# A dialled short code longer than this would no longer be a short code; also bounds the self-check.
MAX_CODE = 6


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 if the committed table differs"
    )
    options = parser.parse_args()

    load_package()
    codes, numbers = emergency()
    patterns = premium_patterns()
    ranges = Automaton(patterns).ranges()
    check_emergency(codes, numbers)
    check_premium(patterns, ranges)
    check_trunk()
    text = render(codes, numbers, ranges)
    shown = OUTPUT.relative_to(ROOT)

    if options.check:
        if not OUTPUT.exists() or OUTPUT.read_text(encoding="utf-8") != text:
            sys.exit(f"{shown} is not what scripts/gen_numbers.py writes: run it and commit the result")
        print(f"{shown} is up to date (phonenumbers {PACKAGE_VERSION})")
        return
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(text, encoding="utf-8")
    print(
        f"wrote {shown}: {len(codes)} emergency codes, {len(numbers)} emergency numbers, "
        f"{len(ranges)} premium ranges ({16 * len(ranges) + 4 * len(numbers)} bytes of numbers)"
    )


# --- the metadata -------------------------------------------------------------------------------------


def load_package():
    """Make exactly the pinned package importable as the global `phonenumbers`."""
    if not (TOOLS / "phonenumbers").is_dir():
        print(f"installing phonenumbers {PACKAGE_VERSION} into {TOOLS.relative_to(ROOT)}", file=sys.stderr)
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check"]
        command += ["--root-user-action=ignore", "--target", str(TOOLS), f"phonenumbers=={PACKAGE_VERSION}"]
        if subprocess.run(command).returncode != 0:
            sys.exit("pip could not install the pinned package; see its message above")
    # First on the path: a copy of another version in the system's Python must not win.
    sys.path.insert(0, str(TOOLS))
    global phonenumbers
    phonenumbers = importlib.import_module("phonenumbers")
    if phonenumbers.__version__ != PACKAGE_VERSION:
        sys.exit(f"{TOOLS} holds phonenumbers {phonenumbers.__version__}, not {PACKAGE_VERSION}: remove it")


def numbering_plans():
    """Metadata of every region and of every calling code without one."""
    load = phonenumbers.PhoneMetadata
    for region in sorted(phonenumbers.SUPPORTED_REGIONS):
        yield load.metadata_for_region(region)
    for code in sorted(phonenumbers.COUNTRY_CODES_FOR_NON_GEO_REGIONS):
        yield load.metadata_for_nongeo_region(code)


def emergency_patterns():
    """(region, calling code, pattern) of every region that has emergency codes."""
    for region in sorted(phonenumbers.SUPPORTED_SHORT_REGIONS):
        short = phonenumbers.PhoneMetadata.short_metadata_for_region(region)
        calling_code = phonenumbers.country_code_for_region(region)
        if not calling_code:
            sys.exit(f"{region} has short numbers but no calling code: decide what to do with it")
        if short.emergency is not None and short.emergency.national_number_pattern:
            yield region, str(calling_code), short.emergency.national_number_pattern


def emergency():
    """The bare codes, and as integers every `+` form: `+` code, `+` calling code code."""
    codes, numbers = set(), set()
    for region, calling_code, pattern in emergency_patterns():
        own = set(words(regex_parser.parse(pattern))) | set(EXPANDED_EMERGENCY.get(region, []))
        codes |= own
        numbers |= {int(calling_code + code) for code in own}
    # "+000" is no E.164 number at all; the reader knows it as a bare code behind a plus.
    numbers |= {int(code) for code in codes if not code.startswith("0")}
    return sorted(codes), sorted(numbers)


def dear_kinds():
    """(calling code, trunk prefix or None, national pattern) of premium rate and shared cost everywhere."""
    for plan in numbering_plans():
        for kind in (plan.premium_rate, plan.shared_cost):
            if kind is not None and kind.national_number_pattern:
                yield str(plan.country_code), plan.national_prefix, kind.national_number_pattern


def premium_patterns():
    """(calling code, national pattern) of everything that costs the caller extra.

    Regions that share a calling code (+1, +7, +39, +44 ...) are joined: what one of them bills as premium is
    premium, so an area code that metadata files under a neighbour cannot open a gap. National patterns
    include significant leading zeros (Italy), so calling code and national number simply stand side by side.

    Each also with the trunk prefix left in (+44 0 906...): not a number anybody has (check_trunk), but a
    platform that normalises with libphonenumber would quietly drop the prefix and place the call.
    """
    found = set()
    for calling_code, trunk, pattern in dear_kinds():
        found.add((calling_code, pattern))
        if trunk:
            found.add((calling_code, f"{trunk}(?:{pattern})"))
    for network in WHOLE_NETWORKS:
        found.add((network, rf"\d{{0,{MAX_DIGITS - len(network)}}}"))
    return sorted(found)


# --- regular expressions to words and to ranges --------------------------------------------------------


def digits(op, argument):
    """The digits one regex element stands for, or None if it is not a single character."""
    if op == "LITERAL":
        return {int(chr(argument))}
    if op != "IN":
        return None
    result = set()
    for kind, value in argument:
        if str(kind) == "LITERAL":
            result.add(int(chr(value)))
        elif str(kind) == "RANGE":
            result |= set(range(value[0] - ord("0"), value[1] - ord("0") + 1))
        elif str(kind) == "CATEGORY" and str(value) == "CATEGORY_DIGIT":
            result |= set(range(10))
        else:
            sys.exit(f"unexpected {kind} {value} in a pattern: teach gen_numbers.py about it")
    return result


def words(parsed):
    """Every word of a finite pattern."""
    result = [""]
    for op, argument in parsed:
        op = str(op)
        chosen = digits(op, argument)
        if chosen is not None:
            choices = [str(digit) for digit in sorted(chosen)]
        elif op == "SUBPATTERN":
            choices = words(argument[3])
        elif op == "BRANCH":
            choices = [word for branch in argument[1] for word in words(branch)]
        elif op == "MAX_REPEAT":
            low, high, inner = argument
            repeats = (itertools.product(words(inner), repeat=n) for n in range(low, high + 1))
            choices = ["".join(parts) for parts in itertools.chain.from_iterable(repeats)]
        else:
            sys.exit(f"unexpected {op} in a pattern: teach gen_numbers.py about it")
        result = [start + end for start in result for end in choices]
    return result


class Automaton:
    """All patterns as one automaton, read out as ranges.

    A canonical number never starts with 0, so its integer value fixes its length: a set of numbers is a set
    of integers, and what a numbering plan calls "900 and seven more digits" is one range of them.
    """

    def __init__(self, patterns):
        self.moves = []  # per state: list of (digits, next state)
        self.jumps = []  # per state: states reached without reading a digit
        self.start, self.accept = self.state(), self.state()
        for calling_code, pattern in patterns:
            first = self.state()
            self.jumps[self.start].append(first)
            last = self.add(regex_parser.parse(f"{calling_code}(?:{pattern})"), first)
            self.jumps[last].append(self.accept)

    def state(self):
        self.moves.append([])
        self.jumps.append([])
        return len(self.moves) - 1

    def add(self, parsed, at):
        """Append a parsed pattern behind state `at`; answers the state where it ends."""
        for op, argument in parsed:
            op = str(op)
            chosen = digits(op, argument)
            if chosen is not None:
                after = self.state()
                self.moves[at].append((frozenset(chosen), after))
                at = after
            elif op == "SUBPATTERN":
                at = self.add(argument[3], at)
            elif op == "BRANCH":
                after = self.state()
                for branch in argument[1]:
                    self.jumps[self.add(branch, at)].append(after)
                at = after
            elif op == "MAX_REPEAT":
                at = self.add_repeat(*argument, at)
            else:
                sys.exit(f"unexpected {op} in a pattern: teach gen_numbers.py about it")
        return at

    def add_repeat(self, low, high, inner, at):
        if high > MAX_DIGITS:
            sys.exit("an unbounded repeat in a pattern: teach gen_numbers.py about it")
        for _ in range(low):
            at = self.add(inner, at)
        after = self.state()
        self.jumps[at].append(after)
        for _ in range(high - low):
            at = self.add(inner, at)
            self.jumps[at].append(after)
        return after

    def closure(self, states):
        found, todo = set(states), list(states)
        while todo:
            for after in self.jumps[todo.pop()]:
                if after not in found:
                    found.add(after)
                    todo.append(after)
        return frozenset(found)

    @functools.lru_cache(maxsize=None)
    def step(self, states, digit):
        return self.closure([after for state in states for take, after in self.moves[state] if digit in take])

    @functools.lru_cache(maxsize=None)
    def tails(self, states, length):
        """Ranges of the integers that the `length` remaining digits may form."""
        if not states:
            return ()
        if length == 0:
            return ((0, 0),) if self.accept in states else ()
        result, weight = [], 10 ** (length - 1)
        for digit in range(10):
            for low, high in self.tails(self.step(states, digit), length - 1):
                join(result, low + digit * weight, high + digit * weight)
        return tuple(result)

    def ranges(self):
        """Sorted, disjoint, inclusive ranges of whole numbers with 2 to 15 digits."""
        result = []
        for length in range(2, MAX_DIGITS + 1):
            for low, high in self.tails(self.closure([self.start]), length):
                join(result, low, high)
        return result


def join(ranges, low, high):
    """Append a range, melting it into the one before where they touch."""
    if ranges and ranges[-1][1] + 1 == low:
        ranges[-1] = (ranges[-1][0], high)
    else:
        ranges.append((low, high))


# --- self-checks: the tables against the original patterns, by another road ------------------------------


def check_emergency(codes, numbers):
    """Try every digit string of up to six digits against the patterns themselves."""
    patterns = sorted({pattern for _, _, pattern in emergency_patterns()})
    known = re.compile("|".join(f"(?:{pattern})" for pattern in patterns))
    extra = set(itertools.chain.from_iterable(EXPANDED_EMERGENCY.values()))
    strings = (f"{n:0{width}}" for width in range(1, MAX_CODE + 1) for n in range(10**width))
    expected = {text for text in strings if known.fullmatch(text)} | extra
    expect(set(codes) == expected, f"emergency codes differ: {sorted(set(codes) ^ expected)[:5]}")
    for number in numbers:
        expect(number < 2**32, f"+{number} does not fit the table's u32")
        # The exact match refuses nobody's telephone, or the rule would need a second look.
        try:
            valid = phonenumbers.is_valid_number(phonenumbers.parse(f"+{number}"))
        except phonenumbers.NumberParseException:
            valid = False
        expect(not valid, f"+{number} is an emergency number and a subscriber's number")


def check_premium(patterns, ranges):
    """Compare ranges and patterns at every edge, on words of every pattern, near them and at random."""
    compiled = {}
    for calling_code, pattern in patterns:
        compiled.setdefault(calling_code, []).append(re.compile(f"{calling_code}(?:{pattern})"))
    samples = set()
    for low, high in ranges:
        expect(low <= high, "an empty range")
        samples |= {low - 1, low, (low + high) // 2, high, high + 1}
    dice = random.Random(PACKAGE_VERSION)  # seeded: a failure can be repeated
    for calling_code, pattern in patterns:
        parsed = regex_parser.parse(f"{calling_code}(?:{pattern})")
        for _ in range(100):
            word = draw(parsed, dice)
            place = dice.randrange(len(word))
            near = word[:place] + str(dice.randrange(10)) + word[place + 1 :]
            samples |= {int(word), int(near), int(word + "0"), int(word[:-1])}
    for calling_code in compiled:
        for _ in range(200):
            rest = dice.randrange(3, MAX_DIGITS + 1 - len(calling_code))
            samples.add(int(calling_code + "".join(str(dice.randrange(10)) for _ in range(rest))))
    for number in sorted(samples):
        compare(number, compiled, ranges)
    check_examples(ranges)


def compare(number, compiled, ranges):
    text = str(number)
    if not 2 <= len(text) <= MAX_DIGITS:
        return
    matched = any(
        pattern.fullmatch(text) for width in (1, 2, 3) for pattern in compiled.get(text[:width], [])
    )
    expect(matched == covers(ranges, number), f"+{number}: table and patterns disagree")
    if not matched:
        # The library's own verdict, with everything it knows about shared calling codes; where it reads
        # another number than the one written (carrier codes), it has no verdict on this one.
        try:
            read = phonenumbers.parse(f"+{number}")
        except phonenumbers.NumberParseException:
            return
        kind = phonenumbers.number_type(read)
        as_written = phonenumbers.format_number(read, phonenumbers.PhoneNumberFormat.E164) == f"+{number}"
        dear = kind in (phonenumbers.PhoneNumberType.PREMIUM_RATE, phonenumbers.PhoneNumberType.SHARED_COST)
        expect(not (dear and as_written), f"+{number}: libphonenumber calls it premium, the table does not")


def check_trunk():
    """No premium number with its trunk prefix left in is somebody's number: compare whole languages."""
    kinds = "fixed_line mobile toll_free premium_rate shared_cost voip personal_number pager uan voicemail"
    lived_in = set()
    for plan in numbering_plans():
        descriptions = (getattr(plan, kind) for kind in kinds.split())
        patterns = (each.national_number_pattern for each in descriptions if each is not None)
        lived_in |= {(str(plan.country_code), pattern) for pattern in patterns if pattern}
    trunk = {(code, f"{prefix}(?:{pattern})") for code, prefix, pattern in dear_kinds() if prefix}
    lived_in = Automaton(sorted(lived_in)).ranges()
    for low, high in Automaton(sorted(trunk)).ranges():
        clear = not any(start <= high and low <= end for start, end in lived_in)
        expect(clear, f"+{low} to +{high}: a trunk prefix that is part of real numbers")


def check_examples(ranges):
    for plan in numbering_plans():
        for kind in (plan.premium_rate, plan.shared_cost):
            if kind is not None and kind.example_number:
                number = int(f"{plan.country_code}{kind.example_number}")
                expect(covers(ranges, number), f"+{number}: the metadata's own example is missing")


def draw(parsed, dice):
    """A random word of a pattern."""
    result = ""
    for op, argument in parsed:
        op = str(op)
        chosen = digits(op, argument)
        if chosen is not None:
            result += str(dice.choice(sorted(chosen)))
        elif op == "SUBPATTERN":
            result += draw(argument[3], dice)
        elif op == "BRANCH":
            result += draw(dice.choice(argument[1]), dice)
        else:
            low, high, inner = argument
            result += "".join(draw(inner, dice) for _ in range(dice.randint(low, high)))
    return result


def covers(ranges, number):
    low, high = 0, len(ranges)
    while low < high:
        middle = (low + high) // 2
        if ranges[middle][1] < number:
            low = middle + 1
        else:
            high = middle
    return low < len(ranges) and ranges[low][0] <= number


def expect(truth, message):
    if not truth:
        sys.exit(f"self-check failed, nothing written: {message}")


# --- the Rust file -------------------------------------------------------------------------------------


def render(codes, numbers, ranges):
    networks = ", ".join(f"+{code}" for code in sorted(WHOLE_NETWORKS))
    parts = [
        "//! Emergency and premium numbers of the world. Written by `scripts/gen_numbers.py`; do not edit.",
        "//!",
        "//! Source: the metadata of libphonenumber (Apache-2.0), in the version named below.",
        "",
        "/// Version of the libphonenumber metadata the tables were written from.",
        f'pub(super) const METADATA_VERSION: &str = "{PACKAGE_VERSION}";',
        "",
        "/// Every emergency short code of any region, as dialled; sorted as text.",
        "#[rustfmt::skip]",
        f"pub(super) static EMERGENCY_CODES: [&str; {len(codes)}] = [",
        *wrapped(f'"{code}"' for code in codes),
        "];",
        "",
        "/// The same codes behind a `+`: alone where E.164 can write them, and behind the calling code of each",
        "/// region that has the code. Sorted.",
        "#[rustfmt::skip]",
        f"pub(super) static EMERGENCY_NUMBERS: [u32; {len(numbers)}] = [",
        *wrapped(str(number) for number in numbers),
        "];",
        "",
        "/// Numbers that cost extra: premium rate and shared cost of every region (also with the trunk prefix",
        "/// left in, which some platforms would drop before dialling), and the networks",
        f"/// {networks} whole.",
        "/// Ranges of the number read as an integer, each packed into one word: see `super::unpack`. Sorted and",
        "/// disjoint.",
        "#[rustfmt::skip]",
        f"pub(super) static PREMIUM_RANGES: [u64; {len(ranges)}] = [",
        *wrapped(f"{pack(low, high):#x}" for low, high in ranges),
        "];",
    ]
    return "\n".join(parts) + "\n"


def pack(low, high):
    """A range in one word. Nearly all are whole blocks (`+1900xxxxxxx`), so the zeros need not be stored."""
    first, after, zeros = low, high + 1, 0
    while first % 10 == 0 and after % 10 == 0:
        first, after, zeros = first // 10, after // 10, zeros + 1
    span = after - first - 1
    expect(first < 1 << 48 and span < 1 << 12 and zeros < 1 << 4, f"{low}-{high} does not fit its packing")
    return first << 16 | span << 4 | zeros


def wrapped(items, width=100):
    """Items with commas, as many to a line as fit."""
    line = "   "
    for item in items:
        if len(line) + len(item) + 2 > width:
            yield line
            line = "   "
        line += f" {item},"
    yield line


if __name__ == "__main__":
    main()
