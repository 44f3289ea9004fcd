"""A file's bytes -> findings. Puts the readers together; judges nothing."""

from detector.provenance import exif, iptc, samsung, tc260, text, xmp
from detector.provenance.blocks import Blocks, collect
from detector.provenance.manifest import ManifestReader, illegible
from detector.schema import Finding


class FileReader:
    """Reads what files say of themselves; safe to use from several threads."""

    def __init__(self, trust_anchors: str | None = None, max_block: int = 1_048_576, prompts: bool = False) -> None:
        """trust_anchors: PEM text. max_block: bytes of all blocks of one kind. prompts: report them."""
        self._manifests = ManifestReader(trust_anchors)
        self._max_block, self._prompts = max_block, prompts

    def read(self, kind: str, data: bytes) -> tuple[Finding, ...]:
        """kind: JPEG | PNG | WEBP | AVIF. Takes any bytes and raises nothing for what is in them."""
        blocks = collect(kind, data, self._max_block)
        properties = xmp.parse(blocks.xmp)
        facts = [exif.parse(block) for block in blocks.exif]
        comments = [comment for each in facts for comment in exif.comments(each)]
        chinese = [*xmp.labels(properties), *(value for key, value in blocks.texts if key == "AIGC")]
        chinese += [comment for comment in comments if "AIGC" in comment]
        return (
            *self._manifest(kind, data, blocks, xmp.remote_manifest(properties)),
            *xmp.read(properties, self._prompts),
            *iptc.read(blocks.iim),
            *tc260.read(chinese),
            *text.read(blocks.texts, comments, self._prompts),
            *(finding for each in facts for finding in exif.read(each)),
            *samsung.read(blocks.edits),
        )

    def _manifest(self, kind: str, data: bytes, blocks: Blocks, remote: bool) -> list[Finding]:
        if blocks.manifest > self._max_block:
            return [illegible(f"a manifest of {blocks.manifest:,} bytes, more than is read")]
        if blocks.manifest:
            return [self._manifests.read(kind, data)]
        if remote:
            return [
                Finding(source="c2pa", claim="none", detail="names a manifest stored elsewhere, which is not fetched")
            ]
        return []
