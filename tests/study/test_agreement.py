"""Which metric ranks images as people do: correlations against scipy, what a CSV must hold, and a real run."""

from __future__ import annotations

import math
import re

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kendalltau, pearsonr, spearmanr

from rdpbench.cli import main
from rdpbench.errors import ConfigError, UnknownName
from rdpbench.setting import Setting
from rdpbench.study.scores import agree, agreement_csv, agreement_table, logistic, matched, read_opinions


def scores(images=12, codecs=("jpeg", "webp"), rates=(20.0, 60.0)):
    """A frame as ``read_results(per="image")`` gives it, and what people think of each."""
    rng = np.random.default_rng(0)
    lines, opinions = [], []
    for image in range(images):
        for codec in codecs:
            for rate in rates:
                quality = rate / 20 + rng.normal(0, 0.5)
                opinions.append({"image": f"i{image}", "codec": codec, "rate": rate, "opinion": quality})
                values = {"psnr": 25 + 3 * quality + rng.normal(0, 4), "flip": math.exp(-quality), "ms-ssim": 1.0}
                for metric, value in values.items():
                    lines.append({"image": f"i{image}", "codec": codec, "rate": rate, "metric": metric, "value": value})
    fields = {"rate_field": "quality", "target_bpp": math.nan, "status": "ok", "seed": 0}
    fields |= {"dataset": "kodak", "protocol": "as-is", "manifest": "12"}
    return pd.DataFrame(lines).assign(**fields), pd.DataFrame(opinions)


def test_correlations_are_those_of_scipy():
    measured, opinions = scores()
    both = matched(opinions, measured)
    first, second = agree(both, ["psnr", "flip", "ms-ssim"])
    assert (first.metric, second.metric) == ("flip", "psnr")  # FLIP, turned round, is the opinion; ms-ssim is constant
    assert [round(each.value, 6) for each in first.coefficients[:2]] == [1, 1]
    assert first.coefficients[2].value > 0.98
    people, psnr = both["opinion"].to_numpy(), both["psnr"].to_numpy()
    assert second.coefficients[0].value == pytest.approx(spearmanr(people, psnr)[0])
    assert second.coefficients[1].value == pytest.approx(kendalltau(people, psnr)[0])
    assert second.coefficients[2].value == pytest.approx(pearsonr(people, logistic(psnr, people))[0])
    assert second.images == 12
    for each in (*first.coefficients, *second.coefficients):
        assert each.low - 1e-9 <= each.value <= each.high + 1e-9
    assert second.coefficients[0].low < second.coefficients[0].value - 0.05
    head, line, _ = agreement_csv([first, second]).splitlines()
    assert head.startswith("metric,spearman,spearman_lo,spearman_hi,kendall,")
    assert line.startswith("flip,1.000000")
    assert "left out, constant" in agreement_table([first], ["ms-ssim"]).notes[-1]


@pytest.mark.parametrize("change", [{"protocol": "crop"}, {"dataset": "mine"}, {"manifest": "34"}])
def test_an_image_in_several_sets_is_not_averaged(change):
    """The value of another image under the same name, or of its crop, is not what people looked at."""
    measured, opinions = scores()
    both = pd.concat([measured, measured.assign(value=0.0, **change)])
    with pytest.raises(ConfigError, match=r"the run has i\d+ in several sets, .*kodak.*, .* add a column dataset"):
        matched(opinions, both)
    if "manifest" not in change:
        named = opinions.assign(dataset="kodak", protocol="as-is")
        assert matched(named, both)["psnr"].tolist() == matched(opinions, measured)["psnr"].tolist()


def test_of_several_seeds_the_one_that_raters_saw_counts():
    measured, opinions = scores()
    both = pd.concat([measured.assign(value=0.0, seed=3), measured, measured.assign(value=0.0, seed=1)])
    assert matched(opinions, both).equals(matched(opinions, measured))


def test_targets_that_differ_in_a_late_digit_are_two():
    measured, opinions = scores(rates=(0.12345678, 0.12345679))
    searched = measured.assign(target_bpp=measured["rate"], rate=math.nan)
    named = opinions.assign(setting=[Setting("", None, rate).words for rate in opinions["rate"]]).drop(columns="rate")
    assert matched(named, searched)["psnr"].tolist() == matched(opinions, measured)["psnr"].tolist()


@pytest.mark.slow
def test_intervals_hold_the_truth():
    """Of 60 draws of 30 images, intervals hold the correlation of the population in at least 54."""
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(60):
        taste = np.repeat(rng.normal(size=30), 4)  # images differ, and what is made of one is alike
        x, y = (taste + rng.normal(size=120) for _ in range(2))
        both = pd.DataFrame({"image": np.repeat(np.arange(30), 4).astype(str), "opinion": x, "psnr": y})
        _, low, high = agree(both, ["psnr"])[0].coefficients[0]
        held += low <= 6 / math.pi * math.asin(0.5 / 2) <= high  # Spearman's of a normal pair with correlation 1/2
    assert held >= 54


def test_few_images_have_no_interval():
    measured, opinions = scores(images=5)
    [first, *_] = agree(matched(opinions, measured), ["flip"])
    assert math.isnan(first.coefficients[0].low)
    assert any("fewer than 8 images" in note for note in agreement_table([first]).notes)


def test_what_opinions_must_hold(tmp_path):
    file = tmp_path / "mos.csv"
    file.write_text("image,codec,mos\na,jpeg,3\n")
    with pytest.raises(ConfigError, match=r"no column 'opinion'.*it has image, codec, mos"):
        read_opinions(file)
    file.write_text("image,codec,opinion\na,jpeg,3\nb,jpeg,good\n")
    with pytest.raises(ConfigError, match="line 3: opinion is 'good', and no number"):
        read_opinions(file)
    for held, told in (("image,codec,opinion,opinion\na,jpeg,3,4\n", "two columns 'opinion'"), ("a\n1,2\n", "2 cells")):
        file.write_text(held)
        with pytest.raises(ConfigError, match=told):
            read_opinions(file)
    file.write_text('\ufeffimage, codec ,opinion\r\n"a", jpeg ,"3"\r\n\r\n')
    assert read_opinions(file).to_dict("records") == [{"image": "a", "codec": "jpeg", "opinion": 3.0}]
    with pytest.raises(ConfigError, match="cannot be read"):
        read_opinions(tmp_path / "gone.csv")
    measured, opinions = scores()
    with pytest.raises(ConfigError, match=r"jpeg at quality 20, quality 60.*add a column setting"):
        matched(opinions.drop(columns="rate"), measured)
    with pytest.raises(UnknownName, match="jpge"):
        matched(opinions.replace("jpeg", "jpge"), measured)
    with pytest.raises(ConfigError, match="no opinion is of an image"):
        matched(opinions.assign(image="z"), measured)
    words = opinions.assign(setting=[f"quality {rate:g}" for rate in opinions["rate"]]).drop(columns="rate")
    assert len(matched(words, measured)) == len(opinions)


def test_a_real_run(run, tmp_path, capsys):
    file = tmp_path / "opinions.csv"
    lines = [
        f"{image},{codec},{n + 2 * place}"
        for n, codec in enumerate(("jpeg", "webp"))
        for place, image in enumerate("abcd")
    ]
    lines = [f"{line},folder-pictures,7,{number}" for number, line in enumerate(lines)]
    file.write_text("\n".join(["image,codec,opinion,dataset,votes,psnr", *lines, "gone,jpeg,3,folder-pictures,7,1"]))
    words = ["agreement", "small", "--root", str(run), "--opinions", str(file), "--out", str(tmp_path / "out")]
    assert main(["study", *words]) == 0
    out = capsys.readouterr().out
    assert re.search(r"psnr +│.*│ +8 │ +4 │", out)
    assert "left out: 1 opinions of an image" in out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("agreement.md", "agreement.csv", "agreement.png", "agreement.pdf", "agreement.svg")
    }
