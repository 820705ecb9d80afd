"""Every sentence of the page, in English and Chinese: one catalogue, two languages.

The page says what the JSON holds; no text names epsilon without delta, unit, adjacency
and scope beside it, and none claims that anybody is anonymous or any law fulfilled.
"""

import re
from typing import Literal, get_args

from guilder_shared.reports import words
from guilder_shared.reports.annex_texts import ANNEX, SAMPLING

Language = Literal["en", "zh"]
LANGUAGES: tuple[str, ...] = get_args(Language)

TEXTS: dict[str, tuple[str, str]] = {
    "title": ("Privacy report of {site}", "{site} 的隐私报告"),
    "who": ("Who", "主体"),
    "who_text": (
        "Site {site}, as of {as_of}, ledger entry {entry}. It signs with the key "
        "{key}. Its data-protection officer signs with the key {officer}.",
        "机构 {site}，截至 {as_of}，账本第 {entry} 条。机构签名公钥 {key}；"
        "数据保护负责人的公钥指纹 {officer}。",
    ),
    "hidden": ("Whose presence is hidden", "隐藏了谁的存在"),
    "nobody": ("No study has been accepted.", "尚未接受任何研究。"),
    "spent": ("Spent and left", "已用与剩余"),
    "no_budget": ("No budget is in force.", "目前没有生效的预算。"),
    "budget_text": (
        "Budget {name} for {datasets}: epsilon {spent} spent, {reserved} reserved, "
        "{left} left of {limit} for the whole lifetime, at delta {delta} in sum, each "
        "{unit}, over all studies and servers.",
        "预算 {name}（数据集 {datasets}）：整个有效期 ε 上限 {limit}，已用 {spent}，预留 "
        "{reserved}，剩余 {left}；δ 合计不超过 {delta}；保护单位：{unit}；"
        "涵盖所有研究与服务器。",
    ),
    "period_text": (
        "This period ({begins} to {ends}) releases epsilon {limit} of it; {taken} is "
        "taken, {left} left.",
        "本期（{begins} 至 {ends}）可用 ε {limit}，已占用 {taken}，剩余 {left}。",
    ),
    "approved": ("Approved by whom", "由谁批准"),
    "not_protected": ("What is not protected", "不受保护的内容"),
    "excused": (
        "Server {server} was excused from saying what it remembers of this ledger, from "
        "{since} until {until} (order {order}): an old copy of the ledger, put back in "
        "that time, would not have shown there.",
        "服务器 {server} 自 {since} 至 {until} 被免除说明其对本账本的记忆（命令 {order}）："
        "其间若放回旧账本，不会在该服务器处显现。",
    ),
    "forgot": (
        "Server {server} had signed for head {signed} of this ledger and, asked at {at}, "
        "remembered {remembered}: until it had caught up it would not have noticed an "
        "old copy.",
        "服务器 {server} 曾签署本账本的第 {signed} 号头，但在 {at} 被询问时只记得 "
        "{remembered}：在其补齐之前，不会察觉旧账本。",
    ),
    "all_remember": (
        "No server was excused from saying what it remembers of this ledger, and none "
        "was found to have forgotten what it had signed for.",
        "没有服务器被免除说明其对本账本的记忆，也未发现任何服务器忘记其签署过的内容。",
    ),
    "nothing": ("nothing", "无"),
    "revoking": ("it is revoked", "被撤销"),
    "head": ("head {number}", "第 {number} 号头"),
    "verify": ("How to verify", "如何验证"),
    "verify_text": (
        "This page shows what the signed file {file} holds; only the file can be "
        "verified. On any computer with Guilder, without a network: {command}. Compare "
        "the key above with the one that the site gave you in another way.",
        "本页显示签名文件 {file} 的内容；只有该文件可以验证。在任何装有 Guilder "
        "的计算机上离线运行：{command}。请将上面的公钥与机构另行告知的公钥核对。",
    ),
    "verify_all": (
        "This page shows what the file {file} holds: every site's signed report, whole; "
        "only the file can be verified. On any computer with Guilder, without a network: "
        "{command}. Compare the keys above with those that the sites gave you in another "
        "way.",
        "本页显示文件 {file} 的内容：各机构的完整签名报告；只有该文件可以验证。在任何装有 "
        "Guilder 的计算机上离线运行：{command}。请将上面的公钥与各机构另行告知的公钥核对。",
    ),
    "annex": ("Annex", "附录"),
    "study": ("Study", "研究"),
    "unit": ("Unit and adjacency", "保护单位与邻接关系"),
    "order": ("Order", "批准令"),
    "officer": ("Officer's key", "负责人公钥指纹"),
    "until": ("Until", "有效期至"),
    "a": ("A. Identity", "A. 身份"),
    "b": ("B. The guarantee", "B. 保证"),
    "c": ("C. Accounting", "C. 核算"),
    "d": ("D. Outside the guarantee", "D. 保证之外"),
    "e": ("E. Implementation", "E. 实现"),
    "f": ("F. Utility", "F. 效用"),
    "h": ("H. Integrity", "H. 完整性"),
    "purpose": ("Purpose", "目的"),
    "digest": ("Study's SHA-256", "研究的 SHA-256"),
    "run": ("Run and server", "运行与服务器"),
    "dataset": ("Dataset", "数据集"),
    "accepted_at": ("Accepted at", "接受时间"),
    "installed": ("Installed packages, SHA-256", "已安装软件包的 SHA-256"),
    "code": ("Recipe of others", "他方配方"),
    "promise": (
        "Whoever sees everything that left this site for this study learns almost the "
        "same whether {who}: (epsilon {epsilon}, delta {delta}) differential privacy, "
        "{adjacency}, over all declared turns, spare turns included.",
        "凡看到本机构为该研究发出的全部内容者，无论{who}，所得几乎相同："
        "(ε {epsilon}, δ {delta}) 差分隐私，{adjacency}，涵盖全部申报轮次（含备用轮次）。",
    ),
    "unprotected": (
        words.UNPROTECTED,
        "未受保护（UNPROTECTED）。没有加入噪声：发出的更新可能泄露本机构的数据行，"
        "没有任何 ε 能描述其程度。",
    ),
    "simulated": (
        words.SIMULATED,
        "模拟：无保证（SIMULATED: NO GUARANTEE）。噪声来自已知种子，且在存有数据的机器上产生。",
    ),
    "caveat": (
        "Some rows of a {unit}, while its others stay, are hidden with at most twice "
        "this epsilon, at delta times 1 + e^epsilon.",
        "同一{unit}的部分行（其余行不变）至多以两倍 ε、δ 乘以 (1 + e^ε) 得到隐藏。",
    ),
    "across": (
        "Over all sites, for a person with rows at {sites} sites: epsilon {epsilon} and "
        "delta {delta} at most; that it is at no more is the study's word.",
        "若某人在 {sites} 个机构都有数据：合计 ε 至多 {epsilon}，δ 至多 {delta}；"
        "机构数量以研究声明为准。",
    ),
    "mechanism": ("Mechanism and sampling", "机制与抽样"),
    "noise": ("Noise over clip norm", "噪声与裁剪范数之比"),
    "clip_norm": ("Clip norm", "裁剪范数"),
    "rate": ("Sample rate", "抽样率"),
    "against": ("Protected against", "防范对象"),
    "against_all": (
        "everyone who sees what left the site, the server included",
        "看到机构发出内容的所有人，包括服务器",
    ),
    "recomputed": (
        "Epsilon recomputed from the events, same delta, unit and scope",
        "由事件重新计算的 ε（同一 δ、单位与范围）",
    ),
    "accountants": ("Three accountants at acceptance", "接受时三种核算方法"),
    "curve": ("The same promise at other deltas", "其他 δ 下的同一保证"),
    "beliefs": (
        "What an observer may come to believe about one unit",
        "观察者对某一单位的信念上限",
    ),
    "belief": (
        "from {before} to at most {at_most}",
        "由 {before} 升至至多 {at_most}",
    ),
    "event": ("Event of one turn", "每轮事件"),
    "turns": ("Turns spent of declared", "已用轮次 / 申报轮次"),
    "prefix": (
        "Epsilon of the turns so far, for comparison only, no guarantee",
        "迄今轮次的 ε（仅供比较，并非保证）",
    ),
    "turn": ("Turn", "轮次"),
    "charged_at": ("Charged at", "记账时间"),
    "started": ("Started", "启动次数"),
    "sealed_at": ("Sealed at", "封存时间"),
    "sha256": ("SHA-256 of what may leave", "可发出内容的 SHA-256"),
    "given_up": ("given up", "已放弃"),
    "refused": ("Refused", "被拒绝的研究"),
    "no_refusal": ("No study was refused.", "没有研究被拒绝。"),
    "time": ("At", "时间"),
    "needed": ("Epsilon and delta asked", "请求的 ε 与 δ"),
    "reason": ("Reason", "原因"),
    "left": ("Epsilon left", "剩余 ε"),
    "budget": ("Budget", "预算"),
    "orders": ("Orders of the officer", "负责人的命令"),
    "say": ("Kind", "种类"),
    "name": ("Name", "名称"),
    "admitted_at": ("Admitted at", "登记时间"),
    "revoked_at": ("Revoked at", "撤销时间"),
    "history": ("Epsilon over time", "ε 随时间的变化"),
    "history_text": (
        "Each step is an accepted study. Solid: the sum of the studies' epsilons, which "
        "the budget counts. Dashed: their composition at half the budget's delta, for "
        "comparison.",
        "每一级为一项被接受的研究。实线：各研究 ε 之和（预算据此计数）；虚线：在预算 δ "
        "的一半处的组合结果，仅供比较。",
    ),
    "sum": ("Sum of epsilons", "ε 之和"),
    "composed": ("Composed", "组合"),
    "by_unit": (
        "Studies that protect different units: their figures do not add up.",
        "各研究保护单位不同：其数值不可相加。",
    ),
    "integrity": (
        "The ledger's newest entry is {entry}, hash {hash}; all {entry} entries are in "
        "the file, chained and signed.",
        "账本最新条目为第 {entry} 条，哈希 {hash}；文件含全部 {entry} 条，链式相连并签名。",
    ),
    "consortium": ("Privacy of {num} sites together", "{num} 个机构的隐私汇总"),
    "consortium_text": (
        "Computed from the sites' signed reports, each of which was verified first. "
        "Every site accounts for its own rows.",
        "由各机构的签名报告计算得出，每份报告均已先行验证。各机构各自核算自己的数据行。",
    ),
    "site": ("Site", "机构"),
    "key": ("Key's fingerprint", "公钥指纹"),
    "as_of": ("As of", "截至"),
    "entry": ("Entries", "条目数"),
    "file": ("SHA-256 of the report", "报告的 SHA-256"),
    "accepted": ("Epsilon, delta accepted", "接受的 ε、δ"),
    "each_site": (
        "figures are for each site alone, over all declared turns",
        "数值针对各机构自身，涵盖全部申报轮次",
    ),
    "none": ("none: unprotected", "无：未受保护"),
    "any_unit": ("unit of its study", "以研究为准的单位"),
    "never": ("no end", "无期限"),
    **ANNEX,
}
UNITS = {
    "record": ("record", "记录"),
    "person": ("person", "个人"),
    "site": ("site", "机构"),
}
PRESENT = {
    "record": ("any one record was in its data or not", "任一条记录是否在其数据中"),
    "person": (
        "any one person had rows in its data or not",
        "任何一个人在其数据中是否有行",
    ),
    "site": ("its data held all its rows or none", "其数据含全部行或不含任何行"),
}
ADJACENCY = {
    "record": (words.ADJACENCY["record"], "增删一条记录"),
    "person": (words.ADJACENCY["person"], "增删一个人在本机构的全部行"),
    "site": (words.ADJACENCY["site"], "本机构全部行与没有任何行相比；其参与是公开的"),
}
NOT_PROTECTED_ZH = (
    "本机构参与了研究、参与了哪些轮次，以及每轮的起止时间。",
    "研究被提出、接受或拒绝；某轮失败或重新开始。",
    "公开规模，以及研究文件与机构文件中的其他常数。",
    "同一单位在其他机构的行：各机构各自核算，持有它的所有机构的损失相加。",
    "无论有无任一单位模型都会学到的总体事实。",
    "在 Guilder 之外对数据所做的任何事情。",
    "以旧账本替换最新账本（若每个记得更多内容的服务器都同意，或已由官员豁免）：链条证明写过什么，不能证明没有更新的内容被截去。原版 Flower 的服务器什么都不记得。",
)


class Texts:
    """The catalogue in one language.

    Args:
        language: "en" or "zh".
    """

    def __init__(self, language: str) -> None:
        self.language = language
        self._at = LANGUAGES.index(language)

    def __call__(self, name: str, /, **values: object) -> str:
        """One text, with its values put in; it is not escaped."""
        return TEXTS[name][self._at].format(**values)

    def unit(self, name: str) -> str:
        """A unit's name."""
        return UNITS[name][self._at] if name in UNITS else name

    def present(self, unit: str) -> str:
        """What an observer cannot tell about one unit."""
        return PRESENT[unit][self._at]

    def adjacency(self, unit: str) -> str:
        """Which two states of the data are told apart only as epsilon allows."""
        return ADJACENCY[unit][self._at]

    def sampling(self, told: str) -> str:
        """Whom a step looks at, as the signed file words it; its number is kept."""
        numbers = re.findall(r"\d+", told)
        known = SAMPLING.get(re.sub(r"\d+", "N", told))
        if self.language == "en" or known is None:
            return told
        return known.replace("N", "".join(numbers))

    def not_protected(self, sentences: list[str]) -> list[str]:
        """What an observer sees although nothing of it is charged."""
        if self.language == "zh" and len(sentences) == len(NOT_PROTECTED_ZH):
            return list(NOT_PROTECTED_ZH)
        return sentences
