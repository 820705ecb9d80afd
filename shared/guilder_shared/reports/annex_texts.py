"""What the annex asks and answers beside figures, in English and Chinese.

Blocks A to F and H as registries and auditors ask them. What only the controllers know,
or what a site's mechanism does not have, is said to be so: no question is left out.
"""

ANNEX: dict[str, tuple[str, str]] = {
    # A. Identity
    "report_id": ("Report", "报告"),
    "report_id_is": (
        "{schema}, ledger head {entry}: {hash}",
        "{schema}，账本头第 {entry} 条：{hash}",
    ),
    "covers": ("Issued, and period covered", "签发时间与涵盖期间"),
    "covers_is": (
        "as of {as_of}; everything since the ledger began at {began}",
        "截至 {as_of}；自账本于 {began} 开始以来的全部内容",
    ),
    "site_id": ("Site and its key", "机构及其公钥"),
    "parties": (
        "Consortium, controllers, recipients of the model",
        "联盟、控制者与模型接收方",
    ),
    "parties_is": (
        "not known to this software: the controllers' agreement says; servers that were "
        "sent results: {servers}",
        "本软件不知晓：以控制者之间的协议为准；曾收到结果的服务器：{servers}",
    ),
    "contact": ("Data-protection officer", "数据保护负责人"),
    "contact_is": (
        "key {key}; name and address are in the controller's records",
        "公钥指纹 {key}；姓名与地址见控制者的记录",
    ),
    "legal": (
        "Legal basis, special categories, retention",
        "法律依据、特殊类别与保存期限",
    ),
    "legal_is": (
        "the controller's to state; no ledger holds it",
        "由控制者说明；账本中没有",
    ),
    "recipe": ("Recipe", "配方"),
    "model": ("Model", "模型"),
    "model_is": (
        "{name}; the trained model and its hash are with the server's operator, the "
        "hashes of what left this site are in C",
        "{name}；训练所得模型及其哈希由服务器运营者保存，本机构发出内容的哈希见 C",
    ),
    "model_none": ("does not apply: nothing is trained", "不适用：不训练模型"),
    "categories": ("Data categories", "数据类别"),
    "subjects": ("About how many data subjects", "数据主体约数"),
    "subjects_are": (
        "about {rows} rows and {persons} persons, typed and signed by the officer",
        "约 {rows} 行、{persons} 人，由负责人填写并签名",
    ),
    "subjects_rows": (
        "about {rows} rows, typed and signed by the officer",
        "约 {rows} 行，由负责人填写并签名",
    ),
    "not_stated": ("not stated", "未说明"),
    "granted": ("Approved", "批准"),
    "granted_is": (
        "{say} {name}, admitted at {at}, signed by {key}; order {order}",
        "{say} {name}，登记于 {at}，由 {key} 签名；命令 {order}",
    ),
    # B. The guarantee
    "flavour": ("Kind of promise", "保证的类型"),
    "flavour_is": (
        "approximate differential privacy, (epsilon, delta), by {unit}",
        "近似差分隐私 (ε, δ)，以{unit}为单位",
    ),
    "unit_key": ("What makes a unit", "单位的标识"),
    "key_person": (
        "the value of column {column}; rows without one are left out",
        "{column} 列的值；没有该值的行不参与",
    ),
    "key_record": ("each row is a unit of its own", "每行自成一个单位"),
    "key_site": ("the site with all its rows", "机构及其全部行"),
    "cap": (
        "Most of a unit in one step, and the rest",
        "单步中一个单位的上限与其余部分",
    ),
    "cap_person": (
        "{num} rows, chosen anew in each step; the others are left out of that step",
        "{num} 行，每步重新选取；其余行不参与该步",
    ),
    "cap_counted": (
        "all its rows, averaged into one; none is left out",
        "其全部行取平均为一；没有行被略去",
    ),
    "cap_none": (
        "does not apply: a unit counts whole and its gradient is clipped",
        "不适用：单位整体计入，其梯度被裁剪",
    ),
    "size": ("Delta against 1 / public size", "δ 与 1/公开规模之比"),
    "size_is": (
        "delta times the public size {num} is {share}",
        "δ 乘以公开规模 {num} 等于 {share}",
    ),
    "gdp": ("mu of Gaussian privacy", "高斯差分隐私的 μ"),
    "gdp_is": ("{mu} over all declared turns", "全部申报轮次合计 {mu}"),
    "gdp_none": (
        "does not apply: not plain Gaussian steps; see the curve",
        "不适用：并非单纯的高斯步骤；见曲线",
    ),
    "conversion": ("How epsilon was computed", "ε 的计算方法"),
    "conversion_is": (
        "from the privacy loss distribution of all declared turns, rounded up; nothing "
        "is converted from another notion",
        "由全部申报轮次的隐私损失分布得出并向上取整；并非由其他定义换算",
    ),
    "deployment": ("Deployment, and whom one must trust", "部署方式与须信任的对象"),
    "deployment_is": (
        "central at this site, which adds the whole noise before anything leaves: no "
        "server, other site or recipient is trusted, and all of them may collude",
        "在本机构集中进行，任何内容发出前由本机构加入全部噪声：无须信任服务器、"
        "其他机构或接收方，它们可以全部串通",
    ),
    "deployment_none": (
        "does not apply: without noise everybody who sees an update must be trusted",
        "不适用：没有噪声，凡看到更新者都必须可信",
    ),
    "release": ("Kind of release", "发布方式"),
    "release_turns": (
        "one update a turn, {num} turns at most, each may depend on those before",
        "每轮一次更新，至多 {num} 轮，后一轮可取决于前几轮",
    ),
    "release_once": ("all answers at once, {num} turn", "全部答案一次发出，{num} 轮"),
    # C. Accounting
    "accountant": ("Accountant and versions", "核算工具与版本"),
    "accountant_is": (
        "privacy loss distributions; at acceptance: {versions}",
        "隐私损失分布；接受时：{versions}",
    ),
    "bounds": ("Bounds of the accountant", "核算的上下界"),
    "bounds_are": (
        "the figure is an upper bound; PRV and RDP in B are two more upper bounds, and "
        "what contradicts them is refused",
        "该数值为上界；B 中的 PRV 与 RDP 为另两个上界，与之矛盾者被拒绝",
    ),
    "failed": ("Failed turns", "失败的轮次"),
    "failed_are": (
        "{num} given up and {again} started again: a turn is charged once, whether or "
        "not its result left",
        "{num} 轮已放弃，{again} 轮重新启动：无论结果是否发出，每轮只记账一次",
    ),
    "measured": ("Metrics, early stopping", "指标与提前停止"),
    "measured_charged": (
        "measured on units held out here, charged as the second part of the event",
        "在本机构留出的单位上测量，记为事件的第二部分",
    ),
    "measured_elsewhere": (
        "nothing is measured on this site's rows; who stops early pays the whole",
        "不在本机构的行上测量；提前停止者仍付全额",
    ),
    "tuned": ("Tuning", "调参"),
    "tuned_is": (
        "each trial at this site is a study of its own, listed and charged here; of "
        "trials elsewhere nothing is known",
        "在本机构的每次试验都是单独的研究，均列于此并记账；他处的试验不得而知",
    ),
    "statistics": ("Federated statistics", "联邦统计"),
    "statistics_charged": (
        "this study: {names}; charged as its one event",
        "本研究：{names}；作为唯一事件记账",
    ),
    "statistics_none": (
        "none in this study; others are studies of their own",
        "本研究中没有；其他统计为单独的研究",
    ),
    "pretrained": ("Pre-training data", "预训练数据"),
    "pretrained_is": (
        "public weights with SHA-256 {sha256}",
        "公开权重，SHA-256 {sha256}",
    ),
    "pretrained_none": (
        "none: the model starts from public constants",
        "无：模型从公开常数开始",
    ),
    "drawn": ("Budgets", "预算"),
    "most": ("Epsilon, lifetime", "ε 上限"),
    "taken": ("Epsilon spent", "已用 ε"),
    "set_aside": ("Epsilon reserved", "预留 ε"),
    "percent": ("Spent and reserved, per cent", "已用与预留（%）"),
    # D. Outside the guarantee
    "seen": ("What is seen although nothing of it is charged", "可见而未记账的内容"),
    "preparing": ("Preparation that depends on data", "依赖数据的预处理"),
    "preparing_is": (
        "none: each unit is prepared from its own rows and public constants",
        "无：每个单位仅由其自身的行与公开常数预处理",
    ),
    "overlap": ("The same person at several sites", "同一人出现在多个机构"),
    "overlap_is": (
        "each site accounts for its own copy and the losses add up; a study of persons "
        "states in B over how many sites",
        "各机构各自核算，损失相加；以个人为单位的研究在 B 中说明机构数量",
    ),
    "public": ("Public data used", "使用的公开数据"),
    "public_is": (
        "study files, bounds and public sizes; rows held by the server's operator may "
        "measure models there",
        "研究文件、界限与公开规模；服务器运营者持有的公开行可用于在其处测量模型",
    ),
    # E. Implementation
    "generator": ("Noise generator", "噪声发生器"),
    "generator_is": (
        "AES in counter mode, keyed by the operating system's randomness",
        "AES 计数器模式，由操作系统随机数作密钥",
    ),
    "floats": ("Floating point", "浮点运算"),
    "floats_are": (
        "noise is drawn with 53 random bits or more, added in float64 and rounded to a "
        "public grid; what that adds is in delta, what clipping adds is in the event",
        "噪声由至少 53 个随机位产生，以 float64 相加并取整到公开网格；其影响计入 δ，"
        "裁剪的误差计入事件",
    ),
    "seeds": ("Seeds", "种子"),
    "seeds_are": (
        "a deployed site has none; a study with one is marked as simulated",
        "部署的机构没有种子；有种子的研究标明为模拟",
    ),
    "secure_sum": (
        "Secure aggregation, threshold, dropouts",
        "安全聚合、门限与掉线",
    ),
    "secure_sum_none": (
        "does not apply: the promise rests on no other site, so none can fail it",
        "不适用：保证不依赖其他机构，因此无从因其失效",
    ),
    "links": ("Links and identities", "链路与身份"),
    "links_are": (
        "mutual TLS 1.3, a key for each site, outbound connections only",
        "双向 TLS 1.3，每个机构一把密钥，仅对外连接",
    ),
    "access": ("Who may spend", "谁可动用预算"),
    "access_is": (
        "studies under an order that the officer's key signed; files are the owner's",
        "仅限负责人密钥签署的命令所涵盖的研究；文件仅所有者可读",
    ),
    "channels": ("Side channels", "侧信道"),
    "channels_are": (
        "a reply leaves at a multiple of a public time, a refusal is a constant; power, "
        "caches and the machine's other users are not considered",
        "回复在公开时间的整数倍发出，拒绝为常量；未考虑功耗、缓存与同机的其他用户",
    ),
    "storage": ("Keys and ledger", "密钥与账本"),
    "storage_is": (
        "Ed25519, the site's and the officer's kept apart; the ledger is chained, signed "
        "and durable before rows are read",
        "Ed25519，机构与负责人的密钥分开保管；账本链式签名，先持久写入，后读取数据",
    ),
    "evidence": ("Test evidence", "测试证据"),
    "evidence_is": (
        "a self-test on made-up rows before each study; empirical bounds and membership "
        "attacks are in the answer of guilder privacy audit, not in this file",
        "每项研究前在虚构数据上自检；经验下界与成员推断攻击见 guilder privacy audit "
        "的结果，不在本文件中",
    ),
    # F. Utility
    "metric": ("Metric with and without the noise", "有无噪声时的指标"),
    "groups": ("Confidence interval, groups", "置信区间与各群体表现"),
    "elsewhere": (
        "not known to a site: with the run's metrics, at the server's operator",
        "机构不知晓：见服务器运营者保存的运行指标",
    ),
    "choice": ("Trade-off, and who chose it", "取舍与选择者"),
    "choice_is": (
        "the noise of each study as in B, chosen by its author and permitted by the "
        "order in A",
        "各研究的噪声见 B，由研究作者选择，由 A 中的命令许可",
    ),
    # H. Integrity
    "chain": ("Ledger's head and range", "账本头与范围"),
    "signed": ("Signature and its key", "签名及其密钥"),
    "signed_is": (
        "Ed25519 of the site's ledger key {key}; it is no certificate's, compare it with "
        "the one that you know",
        "机构账本密钥 {key} 的 Ed25519 签名；它不属于任何证书，请与您所知者核对",
    ),
    "signed_at": ("Signature's time", "签名时间"),
    "signed_at_is": (
        "not stated: the newest entry is of {as_of}",
        "未说明：最新条目的时间为 {as_of}",
    ),
    "previous": ("Previous report", "上一份报告"),
    "previous_is": (
        "does not apply: all entries are here, so each earlier report is a beginning of "
        "this one",
        "不适用：全部条目均在此，每份先前的报告都是本报告的开头",
    ),
    "command": ("Command that verifies", "验证命令"),
    "forms": ("Forms", "形式"),
    "forms_are": (
        "signed canonical JSON, and this page made from it",
        "签名的规范 JSON，以及由其生成的本页",
    ),
    "tiers": ("Registries", "登记处"),
    "tiers_are": (
        "tier 1 is A, tier 2 is B, tier 3 is C; guilder privacy export has the entries",
        "第 1 级为 A，第 2 级为 B，第 3 级为 C；guilder privacy export 导出全部条目",
    ),
    "shared": ("What may be shared", "可共享的内容"),
    "shared_is": (
        "this whole file; counts of rows, fingerprints and lists of persons stay here",
        "整个文件；行数、指纹与人员名单不离开机构",
    ),
}

SAMPLING = {  # whom a step looks at, as the signed file words it: N stands for a number
    "every row in every step": "每步使用全部行",
    "Poisson": "泊松抽样",
    "every person in every step, at most N rows of each": "每步包含每个人，每人至多 N 行",
    "Poisson over persons, at most N rows of each": "对个人泊松抽样，每人至多 N 行",
    "the whole site, in every step": "每步包含整个机构",
    "the whole site, Poisson": "整个机构，泊松抽样",
    "every row, counted once": "每行计一次",
    "every person, counted once, as the mean of all its rows": "每个人计一次，"
    "取其全部行的平均",
}
