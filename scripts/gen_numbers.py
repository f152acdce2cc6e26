#!/usr/bin/env python3
"""Writes src/number/tables.rs, the tables of emergency and premium-rate numbers.

    scripts/gen_numbers.py            regenerate the table
    scripts/gen_numbers.py --check    fail if the committed table differs

The source is libphonenumber's metadata (Apache-2.0) in the PyPI package `phonenumbers`, at exactly the
version pinned below: the same script and version always write the same bytes. The package is installed with pip into a folder
under .tools/, not into the system's Python.

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

# libphonenumber has these under `expandedEmergency` (crisis lines, test calls), a class that its compiled
# metadata and every port of it leave out. They are emergency calls as well: 933 reads back the caller's
# address, 988 is the suicide and crisis line.
EXPANDED_EMERGENCY = {"US": ["933", "988"], "CA": ["988"]}

# Networks without a country, refused whole and not only in the ranges of the metadata: no call to them is
# local, and toll fraud uses their unlisted ranges.
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
# Longest short code; also limits the self-check.
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
            sys.exit(f"{shown} is out of date; run scripts/gen_numbers.py and commit the result")
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
    """Imports exactly the pinned package as the global `phonenumbers`."""
    if not (TOOLS / "phonenumbers").is_dir():
        print(f"installing phonenumbers {PACKAGE_VERSION} into {TOOLS.relative_to(ROOT)}", file=sys.stderr)
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check"]
        command += ["--root-user-action=ignore", "--target", str(TOOLS), f"phonenumbers=={PACKAGE_VERSION}"]
        if subprocess.run(command).returncode != 0:
            sys.exit("pip could not install the pinned package; see its message above")
    # First on the path, before a copy of another version in the system's Python.
    sys.path.insert(0, str(TOOLS))
    global phonenumbers
    phonenumbers = importlib.import_module("phonenumbers")
    if phonenumbers.__version__ != PACKAGE_VERSION:
        sys.exit(f"{TOOLS} has phonenumbers {phonenumbers.__version__}, expected {PACKAGE_VERSION}; remove it")


def numbering_plans():
    """Yields the metadata of every region and of every calling code without one."""
    load = phonenumbers.PhoneMetadata
    for region in sorted(phonenumbers.SUPPORTED_REGIONS):
        yield load.metadata_for_region(region)
    for code in sorted(phonenumbers.COUNTRY_CODES_FOR_NON_GEO_REGIONS):
        yield load.metadata_for_nongeo_region(code)


def emergency_patterns():
    """Yields (region, calling code, pattern) of every region that has emergency codes."""
    for region in sorted(phonenumbers.SUPPORTED_SHORT_REGIONS):
        short = phonenumbers.PhoneMetadata.short_metadata_for_region(region)
        calling_code = phonenumbers.country_code_for_region(region)
        if not calling_code:
            sys.exit(f"{region} has short numbers but no calling code; add a rule for it to gen_numbers.py")
        if short.emergency is not None and short.emergency.national_number_pattern:
            yield region, str(calling_code), short.emergency.national_number_pattern


def emergency():
    """Returns the short codes, and as integers their `+` forms: `+CODE` and `+CALLINGCODE CODE`."""
    codes, numbers = set(), set()
    for region, calling_code, pattern in emergency_patterns():
        own = set(words(regex_parser.parse(pattern))) | set(EXPANDED_EMERGENCY.get(region, []))
        codes |= own
        numbers |= {int(calling_code + code) for code in own}
    # "+000" is not an E.164 number; the reader treats it as a short code after a plus.
    numbers |= {int(code) for code in codes if not code.startswith("0")}
    return sorted(codes), sorted(numbers)


def premium_kinds():
    """Yields (calling code, trunk prefix or None, national pattern) of all premium-rate and shared-cost numbers."""
    for plan in numbering_plans():
        for kind in (plan.premium_rate, plan.shared_cost):
            if kind is not None and kind.national_number_pattern:
                yield str(plan.country_code), plan.national_prefix, kind.national_number_pattern


def premium_patterns():
    """Returns (calling code, national pattern) of all numbers that cost the caller extra.

    Regions that share a calling code (+1, +7, +39, +44 ...) are joined: what one of them bills as premium is
    premium, so an area code that metadata files under a neighbour cannot open a gap. National patterns
    include significant leading zeros (Italy), so a number is its calling code followed by its national number.

    Each is also listed with its trunk prefix (+44 0 906...). No subscriber has such a number (check_trunk),
    but a platform that normalises with libphonenumber would drop the prefix and place the call.
    """
    found = set()
    for calling_code, trunk, pattern in premium_kinds():
        found.add((calling_code, pattern))
        if trunk:
            found.add((calling_code, f"{trunk}(?:{pattern})"))
    for network in WHOLE_NETWORKS:
        found.add((network, rf"\d{{0,{MAX_DIGITS - len(network)}}}"))
    return sorted(found)


# --- regular expressions to words and to ranges --------------------------------------------------------


def digits(op, argument):
    """Returns the digits that one regex element matches; None unless it matches a single character."""
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
            sys.exit(f"unexpected {kind} {value} in a pattern; add it to gen_numbers.py")
    return result


def words(parsed):
    """Returns every word of a finite pattern."""
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
            sys.exit(f"unexpected {op} in a pattern; add it to gen_numbers.py")
        result = [start + end for start in result for end in choices]
    return result


class Automaton:
    """Automaton of all patterns, from which their ranges are read.

    A canonical number never starts with 0, so its integer value determines its length. A set of numbers
    is a set of integers, and "900 and seven more digits" in a numbering plan is one range of them.
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
        """Appends a parsed pattern after state `at` and returns the state where it ends."""
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
                sys.exit(f"unexpected {op} in a pattern; add it to gen_numbers.py")
        return at

    def add_repeat(self, low, high, inner, at):
        if high > MAX_DIGITS:
            sys.exit("an unbounded repeat in a pattern; add it to gen_numbers.py")
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
        """Returns the ranges of integers that the `length` remaining digits may form."""
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
        """Returns sorted, disjoint, inclusive ranges of whole numbers with 2 to 15 digits."""
        result = []
        for length in range(2, MAX_DIGITS + 1):
            for low, high in self.tails(self.closure([self.start]), length):
                join(result, low, high)
        return result


def join(ranges, low, high):
    """Appends a range, joined with the previous one if they are adjacent."""
    if ranges and ranges[-1][1] + 1 == low:
        ranges[-1] = (ranges[-1][0], high)
    else:
        ranges.append((low, high))


# --- self-checks: the tables against the original patterns, computed in another way ----------------------


def check_emergency(codes, numbers):
    """Compares the codes with the patterns for every string of up to six digits."""
    patterns = sorted({pattern for _, _, pattern in emergency_patterns()})
    known = re.compile("|".join(f"(?:{pattern})" for pattern in patterns))
    extra = set(itertools.chain.from_iterable(EXPANDED_EMERGENCY.values()))
    strings = (f"{n:0{width}}" for width in range(1, MAX_CODE + 1) for n in range(10**width))
    expected = {text for text in strings if known.fullmatch(text)} | extra
    expect(set(codes) == expected, f"emergency codes differ: {sorted(set(codes) ^ expected)[:5]}")
    for number in numbers:
        expect(number < 2**32, f"+{number} does not fit the table's u32")
        # The rule refuses exact matches, so none of them may be a subscriber's number.
        try:
            valid = phonenumbers.is_valid_number(phonenumbers.parse(f"+{number}"))
        except phonenumbers.NumberParseException:
            valid = False
        expect(not valid, f"+{number} is both an emergency number and a subscriber's number")


def check_premium(patterns, ranges):
    """Compares ranges and patterns at every edge, on words of every pattern, near them and at random."""
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
        # The library's own classification, with its rules for shared calling codes. It does not apply where
        # the library reads another number than the one written (carrier codes).
        try:
            read = phonenumbers.parse(f"+{number}")
        except phonenumbers.NumberParseException:
            return
        kind = phonenumbers.number_type(read)
        as_written = phonenumbers.format_number(read, phonenumbers.PhoneNumberFormat.E164) == f"+{number}"
        is_premium = kind in (phonenumbers.PhoneNumberType.PREMIUM_RATE, phonenumbers.PhoneNumberType.SHARED_COST)
        expect(not (is_premium and as_written), f"+{number}: libphonenumber calls it premium, the table does not")


def check_trunk():
    """Checks that no premium number with its trunk prefix is a subscriber's number, by comparing all ranges."""
    kinds = "fixed_line mobile toll_free premium_rate shared_cost voip personal_number pager uan voicemail"
    assigned = set()
    for plan in numbering_plans():
        descriptions = (getattr(plan, kind) for kind in kinds.split())
        patterns = (each.national_number_pattern for each in descriptions if each is not None)
        assigned |= {(str(plan.country_code), pattern) for pattern in patterns if pattern}
    trunk = {(code, f"{prefix}(?:{pattern})") for code, prefix, pattern in premium_kinds() if prefix}
    assigned = Automaton(sorted(assigned)).ranges()
    for low, high in Automaton(sorted(trunk)).ranges():
        clear = not any(start <= high and low <= end for start, end in assigned)
        expect(clear, f"+{low} to +{high}: the trunk prefix is part of assigned numbers")


def check_examples(ranges):
    for plan in numbering_plans():
        for kind in (plan.premium_rate, plan.shared_cost):
            if kind is not None and kind.example_number:
                number = int(f"{plan.country_code}{kind.example_number}")
                expect(covers(ranges, number), f"+{number}: the metadata's own example is missing")


def draw(parsed, dice):
    """Returns a random word of a pattern."""
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
        "/// Emergency short codes of all regions, as dialled; sorted as text.",
        "#[rustfmt::skip]",
        f"pub(super) static EMERGENCY_CODES: [&str; {len(codes)}] = [",
        *wrapped(f'"{code}"' for code in codes),
        "];",
        "",
        "/// Emergency codes after a `+`: alone where E.164 allows it, and after the calling code of each region",
        "/// that has the code. Sorted.",
        "#[rustfmt::skip]",
        f"pub(super) static EMERGENCY_NUMBERS: [u32; {len(numbers)}] = [",
        *wrapped(str(number) for number in numbers),
        "];",
        "",
        "/// Numbers that cost extra: premium rate and shared cost of every region (also with the trunk prefix",
        "/// left in, which some platforms would drop before dialling), and the whole networks",
        f"/// {networks}.",
        "/// Ranges of numbers read as integers, each packed into one word: see `super::unpack`. Sorted and",
        "/// disjoint.",
        "#[rustfmt::skip]",
        f"pub(super) static PREMIUM_RANGES: [u64; {len(ranges)}] = [",
        *wrapped(f"{pack(low, high):#x}" for low, high in ranges),
        "];",
    ]
    return "\n".join(parts) + "\n"


def pack(low, high):
    """Packs a range into one word. Nearly all are whole blocks (`+1900xxxxxxx`), so the zeros are not stored."""
    first, after, zeros = low, high + 1, 0
    while first % 10 == 0 and after % 10 == 0:
        first, after, zeros = first // 10, after // 10, zeros + 1
    span = after - first - 1
    expect(first < 1 << 48 and span < 1 << 12 and zeros < 1 << 4, f"{low}-{high} does not fit its packing")
    return first << 16 | span << 4 | zeros


def wrapped(items, width=100):
    """Yields lines of items with commas, filled to `width`."""
    line = "   "
    for item in items:
        if len(line) + len(item) + 2 > width:
            yield line
            line = "   "
        line += f" {item},"
    yield line


if __name__ == "__main__":
    main()
