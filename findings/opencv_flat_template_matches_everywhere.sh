#!/usr/bin/env bash
# OpenCV finds a template of one colour everywhere in any picture, with the highest correlation there is.
#
# Seen with: opencv-python-headless 5.0.0.93, scikit-image 0.26.0, numpy 2.4.6; Python 3.11, Linux x86-64.
# Behaviour: matchTemplate with TM_CCOEFF_NORMED gives 1.0 at every place of a picture of noise where the template has no
#   contrast, and minMaxLoc then says the top left corner. One grey level in one pixel of the template, and the best is
#   0.16. The other way round, a picture without contrast and a template of noise, gives 0. scikit-image's
#   match_template, the same correlation, gives 0 in both cases.
# A user of video object detection follows boxes from frame to frame by what they hold, and takes a high correlation for
#   a sure find. A box on a white wall, a clipped sky or a covered lens jumps to the corner of the picture, surely found.
#   Look at the template's own contrast before its likeness.
# Output seen:
#   OpenCV, flat template: 1.00 to 1.00, best at (0, 0)
#   OpenCV, one pixel of it by one level: best 0.16
#   OpenCV, flat picture: 0.00 to 0.00
#   scikit-image, flat template: 0.00 to 0.00
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet opencv-python-headless==5.0.0.93 scikit-image==0.26.0 numpy==2.4.6
venv/bin/python -I - <<'PROGRAM'
import cv2
import numpy as np
from skimage.feature import match_template

noise = np.random.default_rng(0).integers(0, 256, (64, 96), dtype=np.uint8)
flat = np.full((12, 12), 90, np.uint8)
nearly = flat.copy()
nearly[0, 0] += 1


def found(picture, template):
    return cv2.matchTemplate(picture, template, cv2.TM_CCOEFF_NORMED)


everywhere = found(noise, flat)
least, most, _, place = cv2.minMaxLoc(everywhere)
print(f"OpenCV, flat template: {least:.2f} to {most:.2f}, best at {place}")
print(f"OpenCV, one pixel of it by one level: best {found(noise, nearly).max():.2f}")
nowhere = found(np.full((64, 96), 90, np.uint8), noise[:12, :12])
print(f"OpenCV, flat picture: {nowhere.min():.2f} to {nowhere.max():.2f}")
other = match_template(noise, flat)
print(f"scikit-image, flat template: {other.min():.2f} to {other.max():.2f}")

assert (everywhere == 1).all()
assert place == (0, 0)
assert found(noise, nearly).max() < 0.2
assert (nowhere == 0).all()
assert (other == 0).all()
PROGRAM
