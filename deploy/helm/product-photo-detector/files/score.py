"""The release's own test: the service gives a photo, made here, a verdict. Ends with 1 and a reason where not."""

from PIL import Image

from detector.client import Client, Retry
from detector.errors import DetectorError

photo = Image.effect_noise((256, 256), 64).convert("RGB")
with Client(retry=Retry(attempts=4)) as client:  # PPD_ADDRESS, PPD_API_KEY
    try:
        verdict = client.predict(photo)
    except DetectorError as error:
        raise SystemExit(f"No verdict: {error.code}, {error.detail}") from None
print(f"{verdict.label}, probability {verdict.probability:.3f}, model {verdict.model.version}")
