"""Grey material for the demo, from the photographs that scikit-image and scikit-learn install.

    demo_material.py make FOLDER           film.mp4 (three slow pans with a tone as sound) and photos.zip
    demo_material.py show GREY COLOR OUT   frames of both films side by side
    demo_material.py card OUT              truth, grey and default model, for the model card

Photographs: coffee (Rachel Michetti, CC0), chelsea (Stefan van der Walt, CC0), rocket (SpaceX, CC0),
china (danielbuechele, CC BY 2.0), and for the card flower (vultilion, CC BY 2.0), astronaut (NASA, public domain).
"""

import io
import sys
import zipfile
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

FPS, SECONDS_A_SCENE, WIDTH, HEIGHT = 25, 3, 640, 360


def photographs() -> dict[str, NDArray[np.uint8]]:
    from skimage import data
    from sklearn.datasets import load_sample_image

    return {
        "china": load_sample_image("china.jpg"),
        "rocket": data.rocket(),
        "chelsea": data.chelsea(),
        "coffee": data.coffee(),
    }


def pan(photo: NDArray[np.uint8], frames: int) -> list[NDArray[np.uint8]]:
    """A slow zoom with a little grain, as a rostrum camera would film it: (H, W) grey."""
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
    height, width = grey.shape
    grain = np.random.default_rng(1)
    film = []
    for t in np.linspace(0, 1, frames):
        w = min(width, height * WIDTH / HEIGHT) * (1 - 0.2 * t)
        h = w * HEIGHT / WIDTH
        x, y = (width - w) * (0.3 + 0.4 * t), (height - h) * 0.5
        view = np.array([[w / WIDTH, 0, x], [0, h / HEIGHT, y]])
        frame = cv2.warpAffine(grey, view, (WIDTH, HEIGHT), flags=cv2.INTER_AREA | cv2.WARP_INVERSE_MAP)
        codes = 16 + frame * (219 / 255) + grain.normal(0, 2, frame.shape)
        film.append(np.clip(codes, 16, 235).astype(np.uint8))
    return film


def make_film(path: Path, photos: dict[str, NDArray[np.uint8]]) -> None:
    rate = 44_100
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=FPS, options={"crf": "16"})
        video.width, video.height, video.pix_fmt, video.time_base = WIDTH, HEIGHT, "yuv420p", Fraction(1, FPS)
        audio = out.add_stream("aac", rate=rate, layout="mono")
        pictures = [f for photo in list(photos.values())[:3] for f in pan(photo, FPS * SECONDS_A_SCENE)]
        for pts, picture in enumerate(pictures):
            planes = np.full((HEIGHT * 3 // 2, WIDTH), 128, np.uint8)
            planes[:HEIGHT] = picture
            frame = av.VideoFrame.from_ndarray(planes, "yuv420p")
            frame.pts = pts
            out.mux(video.encode(frame))
        tone = 0.1 * np.sin(2 * np.pi * 220 * np.arange(rate * len(pictures) // FPS) / rate)
        sound = av.AudioFrame.from_ndarray(tone.astype(np.float32)[None], "fltp", "mono")
        sound.rate, sound.pts = rate, 0
        out.mux(audio.encode(sound))
        out.mux(audio.encode())
        out.mux(video.encode())


def make_archive(path: Path, photos: dict[str, NDArray[np.uint8]]) -> None:
    from PIL import Image

    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("README.txt", "Grey photographs for the demo; this file is copied through.\n")
        for name, photo in photos.items():
            data = io.BytesIO()
            Image.fromarray(photo).convert("L").save(data, "JPEG", quality=92)
            archive.writestr(f"album/{name}.jpg", data.getvalue())


def show(grey: Path, color: Path, out: Path) -> None:
    rows = []
    wanted = [FPS * SECONDS_A_SCENE * k + FPS for k in range(3)]
    for path in (grey, color):
        with av.open(str(path)) as film:
            frames = [f.to_ndarray(format="bgr24") for f in film.decode(video=0)]
        rows.append(np.hstack([frames[i] for i in wanted]))
    sheet = cv2.resize(np.vstack(rows), None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(out), sheet, [cv2.IMWRITE_JPEG_QUALITY, 88])


def card(out: Path) -> None:
    from skimage import data
    from sklearn.datasets import load_sample_image

    from model.baselines import all_grey
    from model.engines import open_engine
    from model.evaluate import pictured
    from model.sheets import sheet_of
    from model.weights import load_model

    photos = photographs() | {"flower": load_sample_image("flower.jpg"), "astronaut": data.astronaut()}
    with open_engine(load_model("default")) as engine:
        rows = pictured({"grey": all_grey, "default": engine}, photos.values())
    pairs = [[*left, *right] for left, right in zip(rows[::2], rows[1::2], strict=True)]
    sheet = sheet_of(["truth", "grey", "default"] * 2, pairs)
    cv2.imwrite(str(out), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])


def main() -> None:
    if sys.argv[1] == "make":
        folder = Path(sys.argv[2])
        folder.mkdir(parents=True, exist_ok=True)
        photos = photographs()
        make_film(folder / "film.mp4", photos)
        make_archive(folder / "photos.zip", photos)
    elif sys.argv[1] == "card":
        card(Path(sys.argv[2]))
    else:
        show(*map(Path, sys.argv[2:5]))


if __name__ == "__main__":
    main()
