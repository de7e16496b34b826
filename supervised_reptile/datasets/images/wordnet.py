"""Words for the WordNet ids that name the classes of Mini-ImageNet and tiny-imagenet-fewshot.

The words are those of WordNet 3.0 (Princeton University), one for each class.
"""

WORDS: dict[str, str] = dict(
    line.split(maxsplit=1)
    for line in """\
n01532829 house finch
n01558993 robin
n01704323 triceratops
n01749939 green mamba
n01770081 harvestman
n01843383 toucan
n01855672 goose
n01910747 jellyfish
n01917289 brain coral
n01930112 nematode
n01945685 slug
n01950731 sea slug
n01981276 king crab
n02002724 black stork
n02058221 albatross
n02074367 dugong
n02089867 Walker hound
n02091244 Ibizan hound
n02091831 Saluki
n02099601 golden retriever
n02099712 Labrador retriever
n02101006 Gordon setter
n02105505 komondor
n02106662 German shepherd
n02108089 boxer
n02108551 Tibetan mastiff
n02108915 French bulldog
n02110063 malamute
n02110341 dalmatian
n02111277 Newfoundland
n02113712 miniature poodle
n02113799 standard poodle
n02114548 white wolf
n02116738 African hunting dog
n02120079 Arctic fox
n02124075 Egyptian cat
n02129165 lion
n02138441 meerkat
n02165456 ladybug
n02174001 rhinoceros beetle
n02190166 fly
n02219486 ant
n02268443 dragonfly
n02279972 monarch butterfly
n02364673 guinea pig
n02410509 bison
n02423022 gazelle
n02443484 black-footed ferret
n02457408 three-toed sloth
n02486410 baboon
n02509815 lesser panda
n02606052 rock beauty
n02666196 abacus
n02687172 aircraft carrier
n02730930 apron
n02747177 ashcan
n02769748 backpack
n02791270 barbershop
n02793495 barn
n02795169 barrel
n02808440 bathtub
n02814860 beacon
n02815834 beaker
n02823428 beer bottle
n02841315 binoculars
n02843684 birdhouse
n02871525 bookshop
n02883205 bow tie
n02906734 broom
n02909870 bucket
n02950826 cannon
n02966193 carousel
n02971356 carton
n02977058 cash machine
n02981792 catamaran
n02988304 CD player
n03017168 chime
n03042490 cliff dwelling
n03047690 clog
n03062245 cocktail shaker
n03075370 combination lock
n03085013 computer keyboard
n03100240 convertible
n03126707 crane
n03127925 crate
n03146219 cuirass
n03160309 dam
n03201208 dining table
n03207743 dishrag
n03220513 dome
n03272010 electric guitar
n03337140 file cabinet
n03347037 fire screen
n03400231 frying pan
n03404251 fur coat
n03417042 garbage truck
n03444034 go-kart
n03476684 hair slide
n03527444 holster
n03535780 horizontal bar
n03544143 hourglass
n03584254 iPod
n03599486 jinrikisha
n03637318 lampshade
n03662601 lifeboat
n03670208 limousine
n03676483 lipstick
n03770439 miniskirt
n03773504 missile
n03775546 mixing bowl
n03804744 nail
n03837869 obelisk
n03838899 oboe
n03854065 organ
n03888605 parallel bars
n03891332 parking meter
n03908618 pencil box
n03924679 photocopier
n03930313 picket fence
n03937543 pill bottle
n03970156 plunger
n03977966 police van
n03980874 poncho
n03992509 potter's wheel
n03998194 prayer rug
n04008634 projectile
n04067472 reel
n04070727 refrigerator
n04074963 remote control
n04099969 rocking chair
n04146614 school bus
n04149813 scoreboard
n04179913 sewing machine
n04243546 slot machine
n04251144 snorkel
n04258138 solar dish
n04259630 sombrero
n04265275 space heater
n04275548 spider web
n04296562 stage
n04311004 steel arch bridge
n04366367 suspension bridge
n04376876 syringe
n04389033 tank
n04398044 teapot
n04418357 theater curtain
n04435653 tile roof
n04443257 tobacco shop
n04509417 unicycle
n04515003 upright piano
n04522168 vase
n04532106 vestment
n04540053 volleyball
n04562935 water tower
n04596742 wok
n04604644 worm fence
n04612504 yawl
n06794110 street sign
n07584110 consomme
n07613480 trifle
n07614500 ice cream
n07697537 hotdog
n07711569 mashed potato
n07715103 cauliflower
n07734744 mushroom
n07747607 orange
n07753592 banana
n07768694 pomegranate
n07871810 meat loaf
n07920052 espresso
n09193705 alp
n09246464 cliff
n09256479 coral reef
n13054560 bolete
n13133613 ear of corn
""".splitlines()
)
