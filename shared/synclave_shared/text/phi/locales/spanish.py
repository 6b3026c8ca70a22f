"""Spanish: notes from Spain and Latin America."""

from __future__ import annotations

import re
from typing import Final

from synclave_shared.text.phi.checksums import nif
from synclave_shared.text.phi.dates import DateWords, date_patterns
from synclave_shared.text.phi.locale import Locale
from synclave_shared.text.phi.pattern import DIGITS, IDENTIFIER, Pattern, digits, labelled, shipped
from synclave_shared.text.spans import PhiClass

__all__ = ["SPANISH"]

_MONTHS: Final = (
    "enero|febrero|marzo|abril|mayo|junio|julio|agosto|septiembre|setiembre|octubre|noviembre|diciembre|"
    "ene|feb|mar|abr|may|jun|jul|ago|sept|sep|oct|nov|dic"
)
_FULL: Final = "enero|febrero|marzo|abril|mayo|junio|julio|agosto|septiembre|setiembre|octubre|noviembre|diciembre"
_UNITS: Final = "uno|dos|tres|cuatro|cinco|seis|siete|ocho|nueve"
_DAYS: Final = (
    "primero|uno|dos|tres|cuatro|cinco|seis|siete|ocho|nueve|diez|once|doce|trece|catorce|quince|diecis[eé]is|diecisiete|dieciocho|"
    "diecinueve|veinte|veinti(?:uno|d[oó]s|tr[eé]s|cuatro|cinco|s[eé]is|siete|ocho|nueve)|treinta(?: y uno)?"
)

_WORDS: Final = DateWords(
    months=_MONTHS,
    weekdays="lunes|martes|mi[eé]rcoles|jueves|viernes|s[aá]bado|domingo",
    ordinals="[oº°]|er|ro",
    days=_DAYS,
    years=rf"dos mil(?: (?:{_DAYS}|treinta y (?:{_UNITS})))?|mil novecientos(?: [a-z]{{4,9}}(?: y (?:{_UNITS}))?)?",
    of="de|del|de el",
    before="el|en|desde|hasta|fecha|d[ií]a|del|de|a[ñn]o|a[ñn]os|ingreso|alta|nacid[oa]|naci[oó]|desde el|hasta el|con fecha|a fecha|a partir del",
    on_the="(?:el d[ií]a|hasta el d[ií]a|desde el d[ií]a)",
    labels="fecha|f\\. ?nac|fn|nacimiento|ingreso|alta|informe|consulta|intervenci[oó]n|fecha de [a-zó]{3,14}",
    not_before=r"mg|ml|mm|cm|kg|g\b|d[ií]as|semanas|meses|a[ñn]os|horas|veces|de\b|sist[oó]lico",
    seasons="primavera|verano|oto[ñn]o|invierno|navidad|navidades|semana santa",
    feasts="nochebuena|nochevieja|navidad|navidades|d[ií]a de reyes|semana santa",
    year_confidence=0.7,
    ambiguous=(
        rf"(?<!\w)(?:en|desde|hasta|de|durante|pasado|pr[oó]ximo|mes de|finales de|principios de|mediados de|a) (?P<v>(?:{_FULL}))(?!\w)",
        rf"(?<!\w)(?:{_FULL}) (?:pasado|pr[oó]ximo)(?!\w)",
    ),
)


_FILLERS: Final = r"n[uú]mero|n[uú]m|num|nro|no|n[oº°]|n|id|de|del|la|el|es|con|identificaci[oó]n"
_PHONE: Final = r"\(?[+(]?\d[\d() ./-]{6,18}\d"
_WAY: Final = (
    r"[Cc]alle|CALLE|[Aa]venida|AVENIDA|[Aa]venido|[Aa]vda|[Aa]vd|[Aa]v|AV|[Pp]laza|PLAZA|[Pp]za|[Pp]l|[Pp]aseo|PASEO|[Pp][oº]|[Cc]arretera|[Cc]tra|"
    r"[Cc]amino|[Rr]onda|[Tt]raves[ií]a|[Pp]asaje|[Rr]ambla|[Gg]lorieta|[Uu]rbanizaci[oó]n|[Uu]rb|[Bb]arrio|[Bb]arriada|[Pp]ol[ií]gono|[Cc]arrer|[Aa]vinguda|"
    r"[Rr][uú]a|[Cc]uesta|[Cc]allej[oó]n|[Vv][ií]a|[Aa]partado de correos|[Jj]r[oó]n|[Cc]arrera|[Cc]ra|[Bb]ulevar|[Pp]rolongaci[oó]n|[Ee]dificio"
)

_PATTERNS: Final[tuple[Pattern, ...]] = (
    *date_patterns(_WORDS),
    shipped("age", PhiClass.DATE, "age", r"(?i)(?<![\w./-])(?:9\d|1[0-2]\d)(?:[ ]?a(?:ñ|n)os\b(?! de evoluci)|[ ]?a\b\.?[ ]?(?:de edad))", 0.9, first=DIGITS),
    shipped("age-field", PhiClass.DATE, "age", r"(?i)(?<!\w)edad[ ]?:?[ ]{0,2}(?:de )?(?P<v>(?:9\d|1[0-2]\d)(?: ?a(?:ñ|n)os)?)(?!\d)", 0.95),
    shipped("age-words", PhiClass.DATE, "age", rf"(?i)(?<!\w)(?P<v>noventa(?: y (?:{_UNITS}))?|cien|ciento (?:{_UNITS}))(?= años)", 0.95),
    shipped("age-nonagenarian", PhiClass.DATE, "age", r"(?i)(?<!\w)(?:nonagenari[oa]|centenari[oa])s?(?!\w)", 0.9),
    shipped("nif", PhiClass.OTHER, "nif", r"(?i)(?<!\w)(?:[XYZ][ -]?\d{7}|\d{1,2}\.?\d{3}\.?\d{3})[ -]?[A-Z](?!\w)", 0.97, check=nif),
    shipped("nif-shape", PhiClass.OTHER, "nif", r"(?<!\w)(?:[XYZ]-?\d{7}|\d{8})-?[A-HJ-NP-TV-Z](?!\w)", 0.8),
    labelled("nif-labelled", PhiClass.OTHER, "nif", ["dni", "nif", "nie", "d.n.i.", "n.i.f.", "pasaporte", "c[eé]dula", "curp", "rut", "c\\.i\\.", "documento"], value=r"[A-Z0-9][A-Z0-9. -]{4,18}[A-Z0-9]", fillers=_FILLERS, check=digits(5), confidence=0.9),
    labelled("mrn", PhiClass.MRN, "mrn", ["nhc", "n\\.h\\.c\\.", "historia", "historia cl[ií]nica", "h\\.?c\\.?", "n[oº°]? ?historia", "expediente", "cip", "cipa", "n[uú]mero de paciente", "id paciente"], value=rf"\d{{6,9}}[ ]\d(?=[ ]*(?:[.,;]|\n|$))|{IDENTIFIER}", fillers=_FILLERS + r"|cl[ií]nica|hospital|paciente|nhc", check=digits(3)),
    labelled("episode", PhiClass.OTHER, "episode", ["episodio", "n[uú]mero de episodio", "ic", "contacto", "visita", "muestra", "caso", "registro", "referencia", "biopsia", "informe", "estudio", "lote", "petici[oó]n", "folio"], fillers=_FILLERS, check=digits(4), confidence=0.85),
    labelled("health-plan", PhiClass.HEALTH_PLAN, "insurance", ["nass", "nuss", "n\\.a\\.s\\.s\\.", "seguridad social", "n[uú]mero de afiliaci[oó]n", "afiliaci[oó]n", "p[oó]liza", "tarjeta sanitaria", "tsi", "asegurado", "mutua", "s\\.s\\.", "obra social", "aseguramiento"], value=r"[A-Z0-9](?:[A-Z0-9]|[ ./-](?=[A-Z0-9])){4,24}", fillers=_FILLERS + "|social|sanitaria", check=digits(6)),
    shipped("nass", PhiClass.HEALTH_PLAN, "insurance", r"(?<![\w./-])\d{2}[ /-]\d{7,10}(?:[ /-]\d{2})?(?![\w/-])", 0.85, first=DIGITS),
    labelled("licence", PhiClass.LICENCE, "licence", ["col", "colegiado", "colegiada", "n[uú]mero de colegiado", "n[oº°]? ?col(?:egiad[oa])?", "ncol", "nocol", "licencia", "cmp", "matr[ií]cula profesional", "c[eé]dula profesional", "carnet de conducir", "permiso de conducir", "m\\.n\\.", "m\\.p\\."], value=r"\d(?:[\dA-Z]|[ ./-](?=[\dA-Z])){3,16}", fillers=_FILLERS, check=digits(4)),
    shipped("licence-shape", PhiClass.LICENCE, "licence", r"(?<![\w./-])\d{2}[ -]\d{2}[ -]\d{4,6}(?![\w/-])", 0.8, first=DIGITS),
    labelled("plate", PhiClass.VEHICLE, "plate", ["matr[ií]cula", "veh[ií]culo", "placa", "patente"], value=r"(?:\d{4}[ -]?[B-DF-HJ-NP-TV-Z]{3}|[A-Z]{1,2}[ -]?\d{4}[ -]?[A-Z]{0,2}|[A-Z]{3}[ -]?\d{3,4})(?!\w)", fillers=_FILLERS + "|modelo|marca", confidence=0.9),
    shipped("plate-shape", PhiClass.VEHICLE, "plate", r"(?<![\w./-])\d{4}[ -]?[B-DF-HJ-NP-TV-Z]{3}(?!\w)", 0.6, first=DIGITS),
    labelled("account", PhiClass.ACCOUNT, "account", ["cuenta", "cuenta bancaria", "c\\.?c\\.?c\\.?", "iban", "factura", "tarjeta"], fillers=_FILLERS + r"|corriente|bancaria|cr[eé]dito", check=digits(6)),
    labelled("device", PhiClass.DEVICE, "serial", ["serie", "n[uú]mero de serie", "n/s", "s/n", "lote", "modelo", "dispositivo", "imei"], fillers=_FILLERS + "|serie", check=digits(4)),
    shipped("phone", PhiClass.PHONE, "phone", r"(?<![\w./-])(?:(?:\+|00)34[ .-]?)?\(?[6789]\d{0,2}\)?(?:[ .-]?\d{2,4}){2,4}(?![\w/]|-\d)", 0.75, check=digits(9, 11)),
    labelled("phone-labelled", PhiClass.PHONE, "phone", ["tel[eé]fono", "tel[eé]fonos", "tfno", "tlf", "tlfno", "tel", "tf", "telf", "m[oó]vil", "celular", "contacto", "busca", "centralita", "whatsapp", "llamar al"], value=_PHONE, fillers=_FILLERS + "|m[oó]vil|fijo|contacto|fax|y|/", check=digits(6, 16), confidence=0.95),
    labelled("extension", PhiClass.PHONE, "phone", ["ext", "extensi[oó]n", "busca"], value=r"\d{3,7}(?!\d)", fillers=_FILLERS, check=digits(3, 7), confidence=0.8),
    labelled("fax", PhiClass.FAX, "fax", ["fax", "telefax"], value=_PHONE, fillers=_FILLERS, check=digits(6, 16), confidence=0.97),
    shipped("street", PhiClass.PLACE, "street", rf"(?<![\w/])(?:(?:{_WAY})(?=[ .,])|[Cc]/)\.?,?[ ]{{0,2}}(?:(?:de|del|la|las|los|el|y|i|san|santa|d['´])[ ]?){{0,3}}(?:[A-ZÁÉÍÓÚÑÜ0-9][\w'´.ºª-]{{0,24}}[ ]?(?:(?:de|del|la|las|los|el|y|i)[ ]){{0,3}}){{1,7}}(?:,?[ ]{{0,2}}(?:(?:n[oº°]|n[uú]m|km|piso|portal|bloque|blq|esc|escalera|puerta|pta|planta|bajo|[aá]tico|dcha|izda|izq|s/n|[oº°])\.?[ ]{{0,2}}|\d{{1,5}}(?:[-,/]\d{{1,4}})?[ ]?[ºª°oa]?(?![\w])[ ]{{0,1}}|[A-Z](?!\w)[ ]?)){{0,8}}", 0.9, check=lambda found: any(letter.isdigit() for letter in found) or "/" in found or len(found.split()) > 2),
    shipped("street-lower", PhiClass.PLACE, "street", rf"(?<![\w/])(?:(?:{_WAY})(?=[ .,])|[Cc]/)\.?,?[ ]{{0,2}}(?:[^\W\d][\w'´.]{{0,20}}[ ,]{{1,2}}){{1,6}}(?:n[oº°]\.?[ ]?)?\d{{1,4}}(?!\w)", 0.8),
    labelled("address", PhiClass.PLACE, "street", ["domicilio", "direcci[oó]n", "vive en", "reside en", "residencia"], value=r"(?-i:[A-ZÁÉÍÓÚÑ0-9]|c/)(?:[^\n.;:]|\.(?=[ ]?[A-Za-z0-9][^\n]{0,3})){2,90}(?=\.?[ ]*(?:\n|$|;))", fillers=r"postal|habitual|del|paciente|actual", check=lambda found: any(letter.isalpha() for letter in found), confidence=0.85),
    labelled("zip", PhiClass.PLACE, "zip", ["cp", "c\\.p\\.", "c[oó]digo postal", "c\\.p"], value=r"\d{4,5}(?!\d)", fillers=_FILLERS, check=digits(4), confidence=0.97),
    shipped("zip-before-town", PhiClass.PLACE, "zip", r"(?<![\w.,/-])(?P<v>(?:0[1-9]|[1-4]\d|5[0-2])\d{3})(?=[,. ]{1,3}\(?[A-ZÁÉÍÓÚ][a-záéíóú])", 0.8, first=DIGITS),
    labelled("town", PhiClass.PLACE, "city", ["localidad", "provincia", "municipio", "localidad/ ?provincia", "poblaci[oó]n", "ciudad", "lugar de nacimiento", "pa[ií]s", "nacionalidad", "pa[ií]s de nacimiento", "natural de", "procedente de", "originari[oa] de", "comunidad", "comunidad aut[oó]noma"], value=r"(?-i:[A-ZÁÉÍÓÚÑ])[^\n.;:()\d]{1,40}?(?=[ ]*(?:[.;:()\n\d,]|$))", fillers=r"/|provincia|de|nacimiento|residencia|origen", check=lambda found: True, confidence=0.85),
)

_NAME_LABELS: Final = re.compile(
    r"(?im)(?<![^\W_])(?:"
    r"(?P<patient>nombre(?: y apellidos)?(?: del paciente)?|apellidos?|paciente|nombre completo|primer apellido|segundo apellido|interesad[oa]|asegurad[oa])"
    r"|(?P<relative>familiar(?: de contacto)?|persona de contacto|contacto|acompañante|madre|padre|tutor|tutora|representante|cónyuge|esposa?|marido|hij[oa]|herman[oa])"
    r"|(?P<doctor>m[eé]dic[oa](?: responsable| de familia| tratante| solicitante| adjunto)?|doctora?|dra?|facultativ[oa]|firmado(?: por)?|fdo|remitido por|responsable(?: cl[ií]nico)?|"
    r"cirujan[oa]|ayudante|anestesista|enfermer[oa]|informado por|realizado por|correspondencia|dirigid[oa] a|a la atenci[oó]n de|jefe de servicio|autora?|solicitado por|radi[oó]log[oa]|pat[oó]log[oa]|residente|tutor)"
    r"|(?P<person>persona|testigo|intérprete)"
    r")[ \t]*(?P<sep>[:=]|-[ ]|(?<=por) )[ \t]*\n?[ \t]*"
)

SPANISH: Final = Locale(
    code="es",
    patterns=_PATTERNS,
    titles={
        **dict.fromkeys(("dr", "dra", "drs", "dres", "doctor", "doctora", "prof", "profesor", "profesora", "enfermera", "enfermero", "lic"), "doctor"),
        **dict.fromkeys(("sr", "sra", "srta", "don", "dona", "d", "da", "senor", "senora", "senorita"), "patient"),
    },
    credentials=frozenset("md mir phd due dr dra".split()),
    name_labels=_NAME_LABELS,
    relations=frozenset(
        "marido esposo esposa mujer hijo hija padre madre hermano hermana tio tia primo prima abuelo abuela nieto nieta sobrino sobrina suegro suegra "
        "cunado cunada yerno nuera novio novia pareja amigo amiga vecino vecina tutor tutora cuidador cuidadora".split()
    ),
    roles=frozenset(),
    small_cues=frozenset(),
    relation_fillers=frozenset("llamado llamada de nombre es".split()),
    cues_before=re.compile(
        r"(?i)(?<!\w)(?:llamad[oa]|de nombre|se llama|conocid[oa] como|acompañad[oa] por|acompañad[oa] de|remitid[oa] por|derivad[oa] por|valorad[oa] por|"
        r"atendid[oa] por|firmado por|fdo\.?|paciente|por|correspondencia|autor|responsable|de|y|con|a)[ ,:]{1,2}$"
    ),
    cues_after=re.compile(r"(?i),?[ ](?:es una?|fue|acude|ingresa|presenta|refiere|niega|vive|reside|consulta|de \d{1,3} años|, \d|NHC|servicio de|hospital|unidad de|departamento)"),
    sure_cues_before=re.compile(r"(?i)(?<!\w)(?:llamad[oa]|de nombre|se llama|conocid[oa] como|responde al nombre de)[ ,:]{1,2}$"),
    sure_cues_after=re.compile(r"(?i),?[ ](?:vive (?:en|con)|reside en|, de \d{1,3} años|acude (?:a|por)|ingresa (?:en|por))"),
    particles=frozenset("de del la las los el y i e san santa da do dos das van von".split()),
    not_names=frozenset(
        "el la los las un una unos unas y o de del al a en con por para sin sobre se su sus le lo es fue no si ante tras desde hasta durante segun este esta "
        "paciente nombre apellidos edad sexo fecha medico servicio hospital unidad departamento centro calle informe clinico historia datos asistenciales "
        "domicilio localidad provincia cp pais ncol nocol episodio nhc nass remitido correo electronico email telefono antecedentes exploracion diagnostico "
        "tratamiento evolucion varon mujer hombre ingreso alta urgencias motivo consulta enfermedad actual personales familiares juicio plan medicina "
        "cirugia interna pediatria ginecologia urologia neurologia cardiologia oncologia radiologia dr dra sr sra don dona espana se realiza ademas "
        "tac rm rmn ecg vih hta posteriormente ningun ninguna sin".split()
    ),
    place_cues=re.compile(
        r"(?i)(?<!\w)(?:natural de|residente en|reside en|vive en|procedente de|nacid[oa] en|originari[oa] de|viaje (?:a|por)|viaj[oó] a|trasladad[oa] (?:a|desde)|"
        r"localidad de|ciudad de|provincia de|municipio de|estancia en|vacaciones en|trabaja en|domiciliad[oa] en|emigr[oó] a|visit[oó])[ ]?(?:la |el )?$"
    ),
    place_prepositions=frozenset("en de desde hacia a".split()),
    states={},
    regions=frozenset(
        "españa|espana|alava|albacete|alicante|almeria|asturias|avila|badajoz|barcelona|burgos|caceres|cadiz|cantabria|castellon|ciudad real|cordoba|cuenca|"
        "gerona|girona|granada|guadalajara|guipuzcoa|huelva|huesca|jaen|la rioja|las palmas|leon|lerida|lleida|lugo|madrid|malaga|murcia|navarra|orense|ourense|"
        "palencia|pontevedra|salamanca|segovia|sevilla|soria|tarragona|tenerife|teruel|toledo|valencia|valladolid|vizcaya|bizkaia|zamora|zaragoza|ceuta|melilla|"
        "andalucia|aragon|canarias|castilla y leon|castilla la mancha|cataluña|cataluna|extremadura|galicia|pais vasco|euskadi|baleares|islas baleares|"
        "mallorca|menorca|ibiza|bilbao|san sebastian|donostia|vitoria|pamplona|santander|oviedo|gijon|vigo|santiago de compostela|la coruña|la coruna|coruña|"
        "elche|cartagena|jerez|marbella|getafe|leganes|mostoles|alcorcon|fuenlabrada|alcala de henares|badalona|sabadell|terrassa|hospitalet|reus|logroño|logrono|"
        "merida|ferrol|algeciras|linares|manresa|mexico|colombia|argentina|chile|peru|venezuela|ecuador|bolivia|cuba|uruguay|paraguay|honduras|nicaragua|guatemala|"
        "panama|costa rica|el salvador|republica dominicana|puerto rico|marruecos|portugal|francia|italia|alemania|rumania|reino unido|inglaterra|brasil|senegal|"
        "mali|nigeria|guinea ecuatorial|pakistan|india|china|rusia|ucrania|bulgaria|polonia|buenos aires|bogota|lima|santiago de chile|la habana|caracas|quito|"
        "guayaquil|medellin|monterrey|montevideo|ciudad de mexico".split("|")
    ),
    risky_states=frozenset(),
    degree_states=frozenset(),
    facility_heads=frozenset(),
    facility_first=frozenset(
        "hospital clinica complejo policlinica ambulatorio universidad residencia sanatorio fundacion fundacio instituto complexo facultad hospitalet consultorio policlinico colegio hospitales cap consorcio corporacio".split()
    ),
    facility_links=frozenset("de del la las los el y i general universitario universitaria".split()),
    facility_plain=frozenset("local publico privado comarcal provincial de dia terciario psiquiatrico referencia origen".split()),
    eponym_heads=frozenset("sonda".split()),
    given=("given",),
    family=("family",),
    places=("places-es",),
    facilities=(),
    ordinary=("ordinary-es",),
    eponyms=("eponyms-en", "eponyms-es"),
)
