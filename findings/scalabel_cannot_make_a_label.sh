#!/usr/bin/env bash
# Installed as it asks to be, the tool of BDD100K's label format can make no label.
#
# Seen with: scalabel 0.3.1, pydantic 2.14.4 beside 1.10.26; Python 3.11, Linux x86-64.
# Behaviour: scalabel asks for pydantic of any version. Its optional fields have no default, which pydantic 1 takes for
#   None and pydantic 2 for required: a label with a box is refused for want of box3d, poly2d, rle and graph. Its files
#   leave such fields out, so they cannot be read either. With pydantic 1 both work.
# A user of video object detection who installs it to convert BDD100K's tracking labels gets an error in every frame.
# Output seen:
#   pydantic 2: ValidationError, required box3d graph poly2d rle
#   pydantic 1: a label, of 10 x 8 pixels in COCO's form
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cat >label.py <<'PROGRAM'
import pydantic
from scalabel.label.transforms import box2d_to_bbox
from scalabel.label.typing import Box2D, Label

version = pydantic.VERSION.split(".")[0]
try:
    made = Label(id="7", category="car", box2d=Box2D(x1=2, y1=3, x2=11, y2=10))
    x, y, w, h = box2d_to_bbox(made.box2d)
    print(f"pydantic {version}: a label, of {w:g} x {h:g} pixels in COCO's form")
    assert version == "1" and (w, h) == (10, 8)
except pydantic.ValidationError as error:
    print(f"pydantic {version}: ValidationError, required {' '.join(sorted(row['loc'][0] for row in error.errors()))}")
    assert version == "2"
PROGRAM
for pydantic in pydantic==2.14.4 pydantic==1.10.26; do
  python3 -m venv "$pydantic"
  "$pydantic/bin/pip" install --quiet scalabel==0.3.1 "$pydantic" setuptools
  "$pydantic/bin/python" -I label.py 2>messages || { cat messages >&2; exit 1; }
done
