"""Configs by path and by name."""

import pytest

import nepa_mm
from nepa_mm.apis.configs import ConfigNotFoundError, configs_folder, find_config, list_models
from tests.test_configs import LEAFS


def test_every_leaf_has_a_name():
    assert list_models() == sorted(path.stem for path in LEAFS)
    assert nepa_mm.list_models() == list_models()


def test_patterns_match_what_follows():
    found = list_models('nepa_base')
    assert found and found == [name for name in list_models() if name.startswith('nepa_base')]
    assert list_models('*ade20k') == [name for name in list_models() if 'ade20k' in name]
    assert list_models('resnet') == []


def test_a_name_and_a_path_find_the_same_file(tmp_path, monkeypatch):
    path = next(path for path in LEAFS if 'ade20k' in path.stem)
    assert find_config(path.stem).samefile(path)
    assert find_config(path).samefile(path)
    # a file of the working directory goes before a name
    monkeypatch.chdir(tmp_path)
    (tmp_path / path.stem).write_text('')
    assert find_config(path.stem).resolve() == tmp_path / path.stem


def test_base_files_have_no_name():
    assert (configs_folder() / '_base_' / 'default_runtime.py').is_file()
    with pytest.raises(ConfigNotFoundError, match="config 'default_runtime' does not exist"):
        find_config('default_runtime')


def test_close_names_are_proposed(tmp_path):
    for name in ('a/nepa_base_in1k.py', 'b/upernet_ade20k.py'):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    with pytest.raises(ConfigNotFoundError, match=r'(?s)did you mean.*nepa_base_in1k\.py') as error:
        find_config('nepa_bas_in1k', tmp_path)
    assert 'upernet' not in str(error.value)
    with pytest.raises(ConfigNotFoundError, match='the configs lie in'):
        find_config('zzz', tmp_path)


def test_a_home_folder_is_found(tmp_path, monkeypatch):
    """In Python no shell replaces the tilde."""
    monkeypatch.setenv('HOME', str(tmp_path))
    (tmp_path / 'mine.py').touch()
    assert find_config('~/mine.py') == tmp_path / 'mine.py'
