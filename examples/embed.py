"""A detector inside another program: `python examples/embed.py ENGINES VIDEO`."""

import sys

import rdn_engine

engines, video = sys.argv[1:]
detector = rdn_engine.Detector.from_pretrained(engines)
for result in detector.predict(video, stream=True, threshold=0.5):
    for box, confidence, class_id in zip(result.xyxy, result.confidence, result.class_id, strict=True):
        print(f"frame {result.frame_index}: {result.class_names[class_id]} {confidence:.2f} at {box.round().tolist()}")
