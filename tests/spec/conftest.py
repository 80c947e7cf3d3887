"""What tests of study files share."""

import pytest

from litsexp.spec.errors import LitsexpError
from litsexp.spec.reading import load_study


@pytest.fixture
def error_of(tmp_path):
    """What loading this text says, without the file's name; checked to be one line that opens with it."""

    def load(text, overrides=()):
        path = tmp_path / "study.yaml"
        path.write_text(text, encoding="utf-8")
        with pytest.raises(LitsexpError) as caught:
            load_study(path, overrides)
        message = str(caught.value)
        assert "\n" not in message
        assert message.startswith((f"{path}: ", "--set "))
        return message.removeprefix(f"{path}: ")

    return load
