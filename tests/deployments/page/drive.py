"""What tests do on the page."""

from __future__ import annotations

import base64

from playwright.sync_api import FilePayload, Locator, Page

DROP = """([files]) => {
    const data = new DataTransfer();
    for (const [name, text] of files) {
        const bytes = Uint8Array.from(atob(text), one => one.charCodeAt(0));
        data.items.add(new File([bytes], name, {type: "image/jpeg"}));
    }
    const options = {dataTransfer: data, bubbles: true, cancelable: true};
    document.body.dispatchEvent(new DragEvent("dragenter", options));
    document.body.dispatchEvent(new DragEvent("drop", options));
}"""


PASTE = """([name, text]) => {
    const data = new DataTransfer();
    const bytes = Uint8Array.from(atob(text), one => one.charCodeAt(0));
    data.items.add(new File([bytes], name, {type: "image/png"}));
    const options = {clipboardData: data, bubbles: true, cancelable: true};
    document.activeElement.dispatchEvent(new ClipboardEvent("paste", options));
}"""


def choose(page: Page, file: bytes, name: str = "picture.jpg") -> None:
    """Choose a picture to search by."""
    payload = FilePayload(name=name, mimeType="image/jpeg", buffer=file)
    page.locator("#file").set_input_files(payload)


def dropped(page: Page, *files: tuple[str, bytes]) -> None:
    """Drop files on the page."""
    page.evaluate(DROP, [[[name, base64.b64encode(data).decode()] for name, data in files]])


def pasted(page: Page, name: str, file: bytes) -> None:
    """Paste a picture from the clipboard."""
    page.evaluate(PASTE, [name, base64.b64encode(file).decode()])


def pinched(page: Page, x: float, y: float, by: float) -> None:
    """Pinch with two fingers around a point until they are `by` times as far apart."""
    touch = page.context.new_cdp_session(page)

    def fingers(kind: str, apart: float) -> None:
        points = [{"x": x + side * apart, "y": y, "id": at} for at, side in enumerate((-1, 1))]
        given = {"type": kind, "touchPoints": [] if kind == "touchEnd" else points}
        touch.send("Input.dispatchTouchEvent", given)

    fingers("touchStart", 40)
    for step in range(1, 6):
        fingers("touchMove", 40 * (1 + (by - 1) * step / 5))
    fingers("touchEnd", 0)


def tiles(page: Page) -> Locator:
    """The results."""
    return page.locator("#found .tile[data-id]")


def tile(page: Page, image_id: int) -> Locator:
    """The result of this image."""
    return page.locator(f'#found .tile[data-id="{image_id}"]')
