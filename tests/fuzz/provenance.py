"""Coverage-guided fuzzing of the metadata readers: `make fuzz` (FUZZ_SECONDS=120).

A finding is an exception, an input that takes over 1 s, or memory past the limit. The corpus starts from files made
here: every container with XMP, EXIF, texts, IPTC and a really signed manifest; inputs that found new paths are kept
in build/fuzz. atheris sees the paths of our own code; the native manifest reader gets the same inputs unseen.
"""

import subprocess
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["detector.provenance"]):
    from detector.provenance.compliance import check
    from detector.provenance.judge import judge
    from detector.provenance.policy import Policy, rule
    from detector.provenance.reading import FileReader

KINDS = ("JPEG", "PNG", "WEBP", "AVIF")
READER = FileReader(prompts=True, max_block=65_536)


def read_one(data: bytes) -> None:
    """The first byte chooses the container, the rest is the file."""
    if data:
        evidence = judge(READER.read(KINDS[data[0] % len(KINDS)], data[1:]))
        check(evidence, "real", rule(evidence, "real", "high", Policy()).label)


def main() -> None:
    corpus, seeds = Path("build/fuzz/corpus"), Path("build/fuzz/seeds")
    corpus.mkdir(parents=True, exist_ok=True)
    # In a process of its own, because the tests' photos bring torch, and memory is measured here.
    subprocess.run([sys.executable, "-m", "tests.provenance.samples", *KINDS, str(seeds)], check=True)
    limits = ["-timeout=1", "-rss_limit_mb=512", "-max_len=65536", "-artifact_prefix=build/fuzz/"]
    atheris.Setup([sys.argv[0], *limits, *sys.argv[1:], str(corpus), str(seeds)], read_one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
