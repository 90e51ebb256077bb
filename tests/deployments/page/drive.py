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


def choose(page: Page, file: bytes) -> None:
    """Choose a picture to search by."""
    payload = FilePayload(name="picture.jpg", mimeType="image/jpeg", buffer=file)
    page.locator("#file").set_input_files(payload)


def dropped(page: Page, *files: tuple[str, bytes]) -> None:
    """Drop files on the page."""
    page.evaluate(DROP, [[[name, base64.b64encode(data).decode()] for name, data in files]])


def tiles(page: Page) -> Locator:
    """The results."""
    return page.locator("#found .tile[data-id]")


def tile(page: Page, image_id: int) -> Locator:
    """The result of this image."""
    return page.locator(f'#found .tile[data-id="{image_id}"]')
