"""Text in more than twenty scripts, and code, for the tests of tokenizers: a sentence of our own in each, and what this machine's packages
ship (translations of programs' messages, Debian's questions at installation, Python's library, C headers). Nothing of theirs is kept."""
import collections, gettext, glob, os, sysconfig, unicodedata
from pathlib import Path

OWN = {
    "LATIN": "Each machine is small; together they carry one large model, layer by layer. Ĉiu maŝino estas malgranda. Mỗi máy đều nhỏ, nhưng cùng nhau thì đủ.",
    "CYRILLIC": "Каждая машина мала, но вместе они несут одну большую модель, слой за слоем. Кожна машина мала, ґанок, їжак.",
    "GREEK": "Κάθε μηχανή είναι μικρή· μαζί όμως σηκώνουν ένα μεγάλο μοντέλο, στρώμα με στρώμα.",
    "ARABIC": "كل آلة صغيرة، لكنها معًا تحمل نموذجًا كبيرًا طبقةً بعد طبقة. هر ماشین کوچک است، اما با هم کافی‌اند.",
    "HEBREW": "כל מכונה קטנה, אבל יחד הן נושאות מודל גדול אחד, שכבה אחר שכבה. שָׁלוֹם",
    "DEVANAGARI": "हर मशीन छोटी है, पर साथ मिलकर वे एक बड़ा मॉडल चलाती हैं, परत दर परत। क्षत्रिय ज्ञान श्री",
    "BENGALI": "প্রতিটি যন্ত্র ছোট, কিন্তু একসঙ্গে তারা একটি বড় মডেল চালায়। ক্ষমতা",
    "GURMUKHI": "ਹਰ ਮਸ਼ੀਨ ਛੋਟੀ ਹੈ, ਪਰ ਮਿਲ ਕੇ ਉਹ ਇੱਕ ਵੱਡਾ ਮਾਡਲ ਚਲਾਉਂਦੀਆਂ ਹਨ।",
    "GUJARATI": "દરેક મશીન નાનું છે, પણ સાથે મળીને તેઓ એક મોટું મોડેલ ચલાવે છે.",
    "TAMIL": "ஒவ்வொரு இயந்திரமும் சிறியது; ஆனால் சேர்ந்து ஒரு பெரிய மாதிரியைத் தாங்குகின்றன.",
    "TELUGU": "ప్రతి యంత్రం చిన్నదే, కానీ కలిసి ఒక పెద్ద నమూనాను మోస్తాయి.",
    "KANNADA": "ಪ್ರತಿಯೊಂದು ಯಂತ್ರವೂ ಚಿಕ್ಕದು, ಆದರೆ ಒಟ್ಟಾಗಿ ಒಂದು ದೊಡ್ಡ ಮಾದರಿಯನ್ನು ಹೊರುತ್ತವೆ.",
    "MALAYALAM": "ഓരോ യന്ത്രവും ചെറുതാണ്, പക്ഷേ ഒന്നിച്ച് അവ ഒരു വലിയ മാതൃക വഹിക്കുന്നു.",
    "SINHALA": "සෑම යන්ත්‍රයක්ම කුඩායි, එහෙත් එක්ව ඒවා විශාල ආකෘතියක් දරයි.",
    "THAI": "เครื่องแต่ละเครื่องเล็ก แต่เมื่อรวมกันก็แบกโมเดลใหญ่ได้ทีละชั้น น้ำ กำลัง",
    "LAO": "ເຄື່ອງແຕ່ລະເຄື່ອງນ້ອຍ ແຕ່ຮວມກັນແລ້ວແບກໂມເດລໃຫຍ່ໄດ້",
    "KHMER": "ម៉ាស៊ីននីមួយៗតូច ប៉ុន្តែរួមគ្នាវាអាចផ្ទុកគំរូធំមួយបាន។",
    "MYANMAR": "စက်တစ်လုံးစီသည် သေးငယ်သော်လည်း အတူတကွ မော်ဒယ်ကြီးတစ်ခုကို သယ်ဆောင်သည်။",
    "TIBETAN": "འཕྲུལ་འཁོར་རེ་རེ་ཆུང་ཡང་མཉམ་དུ་དཔེ་གཞི་ཆེན་པོ་ཞིག་འཁུར།",
    "GEORGIAN": "თითოეული მანქანა პატარაა, მაგრამ ერთად ისინი ერთ დიდ მოდელს ატარებენ.",
    "ARMENIAN": "Յուրաքանչյուր մեքենա փոքր է, բայց միասին նրանք կրում են մեկ մեծ մոդել։",
    "ETHIOPIC": "እያንዳንዱ ማሽን ትንሽ ነው፤ አብረው ግን አንድ ትልቅ ሞዴል ይሸከማሉ።",
    "CJK": "每台机器都很小，但它们合起来逐层承载一个大模型。每臺機器都很小。３２位元，Ａ４紙。",
    "HIRAGANA": "どのきかいもちいさいが、いっしょなら一つの大きなモデルを層ごとにはこべる。が・か゛",
    "KATAKANA": "カクマシンハチイサイガ、キョウドウデオオキナモデルヲハコブ。ﾊﾝｶｸｶﾀｶﾅ ㌔㍍ ①②",
    "HANGUL": "기계는 하나하나 작지만 함께 큰 모델을 층층이 나른다. ᄒᆞᆫ글 ㎏",
    "MONGOLIAN": "ᠮᠠᠰᠢᠨ ᠪᠦᠷᠢ ᠵᠢᠵᠢᠭ",
    "CHEROKEE": "ᏣᎳᎩ ᎦᏬᏂᎯᏍᏗ ᎤᏍᏗ",
}


LANGUAGES = "am ar be bg bn bo chr de dz el fa fr gu he hi hy ja ka km kn ko lo ml my ne or pa ru si ta te th ug uk vi zh_CN zh_TW"


def _messages():
    for language in LANGUAGES.split():
        for path in sorted(glob.glob(f"/usr/share/locale/{language}/LC_MESSAGES/*.mo")):
            try:
                with open(path, "rb") as f:
                    catalog = gettext.GNUTranslations(f)._catalog
            except (OSError, ValueError, LookupError, SyntaxError):
                continue
            yield [t for k, t in catalog.items() if k and 0 < len(t) < 2000]
    for path in sorted(glob.glob("/var/lib/dpkg/info/*.templates")):
        yield Path(path).read_text("utf-8", errors="ignore").split("\n\n")


def script(text):
    """The one that most letters are of."""
    letters = collections.Counter(unicodedata.name(c, "?").split()[0].split("-")[0] for c in text[:200] if c.isalpha())
    return letters.most_common(1)[0][0] if letters else "none"


def texts(characters_a_script=20000, code_characters=400000):
    """A list of texts, and a Counter of the characters by script."""
    out, have = [], collections.Counter()
    for t in list(OWN.values()) + ["  ".join(OWN.values()), "\n".join(reversed(OWN.values()))]:
        out.append(t)
        have[script(t)] += len(t)
    for messages in _messages():
        refused = 0 # many in a row: this file's scripts are full
        for t in messages:
            s = script(t)
            refused = 0 if have[s] < characters_a_script else refused + 1
            if refused > 20:
                break
            if not refused:
                have[s] += len(t)
                out.append(t)
    stdlib = sysconfig.get_paths()["stdlib"]
    for pattern in (os.path.join(stdlib, "*.py"), "/usr/include/*.h"):
        room = code_characters // 2
        for path in sorted(glob.glob(pattern), key=lambda p: (len(os.path.basename(p)), p)):
            t = Path(path).read_text("utf-8", errors="ignore")
            if len(t) > room:
                continue
            room -= len(t)
            out.append(t)
            have["code"] += len(t)
    return out, have
