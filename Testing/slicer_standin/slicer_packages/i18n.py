"""Translation, when there is none: texts stay as they are."""


def translate(context: str, text: str) -> str:
    return text


def tr(text: str) -> str:
    return text
