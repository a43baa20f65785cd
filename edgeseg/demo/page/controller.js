/** What the page does: the photo, what was pointed at, the answers, and what is taken away. */

import { askForEverything, askForObject } from "./asking.js";
import { save, takeAway } from "./exports.js";
import { isOnPhoto } from "./frame.js";
import { History } from "./history.js";
import { Newest } from "./newest.js";
import { openPhoto } from "./photo.js";
import { clickAt, packPrompts } from "./prompts.js";
import { NEGATIVE, POSITIVE } from "./signature.js";
import { START, answerText, objectText } from "./wording.js";

/** Holds the state; tells the view what to draw and the panel what to say. */
export class Controller {
  #engine;
  #view;
  #panel;
  #description = null;
  #photo = null;
  #history = new History();
  #newest = new Newest();
  #answer = null;
  #objects = null;
  #generation = 0;
  #isBusy = true;

  /** "point" or "box": what a finger, or Enter on the keyboard, does. */
  tool = "point";
  /** Whether clicks say what is not on the object. */
  isNegative = false;
  /** Called with every new photo. */
  onPhoto = () => {};

  constructor(engine, view, panel) {
    this.#engine = engine;
    this.#view = view;
    this.#panel = panel;
  }

  get isReady() {
    return this.#photo !== null && !this.#isBusy;
  }

  get frame() {
    return this.#photo.frame;
  }

  get canDrawBox() {
    return this.#objects === null;
  }

  say(text) {
    this.#panel.say(text);
  }

  /** Start, once the model is loaded. */
  setModel(description) {
    this.#description = description;
    this.#setReady("Choose a photo, or drop one here.");
  }

  /** Open a photo and encode it. */
  async open(file, name) {
    const generation = (this.#generation += 1);
    const isOurs = () => generation === this.#generation;
    this.#setBusy(`Reading ${name}…`);
    try {
      const photo = await openPhoto(file, name, this.#description);
      if (!isOurs()) return;
      this.#photo = null;
      this.#forgetAnswers();
      this.#view.setPhoto(photo);
      this.#panel.showPhoto();
      const { ms, proposals } = await this.#engine.encode(photo.pixels);
      if (!isOurs()) return;
      this.#photo = { ...photo, proposals };
      this.#panel.setTimings({ encode: ms });
      this.onPhoto();
      this.#setReady(`${name}, ${photo.frame.imageWidth} × ${photo.frame.imageHeight}. ${START}`);
    } catch (error) {
      if (!isOurs()) return;
      this.#setReady();
      this.#panel.fail(error.message);
    }
  }

  #setBusy(text) {
    this.#isBusy = true;
    this.#panel.setState("busy");
    this.say(text);
    this.#refresh();
  }

  #setReady(text = null) {
    this.#isBusy = false;
    this.#panel.setState(this.#photo ? "ready" : "empty");
    if (text) this.say(text);
    this.#refresh();
    this.#panel.countAnswer();
  }

  #forgetAnswers() {
    this.#history.clear();
    this.#newest.cancel();
    this.#answer = null;
    this.#objects = null;
  }

  /** Preview what a click would give. */
  hover(place) {
    if (!this.isReady || !isOnPhoto(this.frame, place)) return;
    if (this.#objects) {
      if (!this.#objects.isPinned) this.#choose(this.#view.objectAt(place));
      return;
    }
    if (!this.#history.isEmpty) return;
    this.#ask({ points: [clickAt(place.x, place.y)], box: null }, true);
  }

  /** The pointer has left the photo. */
  leave() {
    if (!this.isReady) return;
    if (this.#objects && !this.#objects.isPinned) this.#choose(-1);
    if (this.#objects || !this.#history.isEmpty) return;
    this.#newest.cancel();
    this.#view.showMask(null);
  }

  /** A click in the photo: on the object, or not on it. */
  click(place, isNegative) {
    if (!this.isReady || !isOnPhoto(this.frame, place)) return;
    if (this.#objects) {
      this.#pin(this.#view.objectAt(place));
      return;
    }
    const label = isNegative || this.isNegative ? NEGATIVE : POSITIVE;
    this.#history.addPoint(place.x, place.y, label);
    this.#answerPrompt();
  }

  /** A box around the object. */
  drawBox(box) {
    if (!this.isReady || this.#objects) return;
    this.#history.addBox(box);
    this.#answerPrompt();
  }

  /** Take the last step back; in everything mode, leave it. */
  undo() {
    if (!this.isReady) return;
    if (this.#objects) this.leaveEverything();
    else if (this.#history.undo()) this.#answerPrompt();
    else this.say("Nothing to undo.");
  }

  /** Forget all prompts and objects. */
  clear() {
    if (!this.isReady) return;
    this.#forgetAnswers();
    this.#answerPrompt();
  }

  /** Show the next answer: a click may mean a part, an object or a group. */
  otherSize() {
    const count = this.#answer?.candidates.length ?? 0;
    if (count < 2) return;
    this.#answer.chosen = (this.#answer.chosen + 1) % count;
    this.#showAnswer();
  }

  /** Find all objects, or go back from them. */
  everything() {
    if (this.#objects) this.clear();
    else if (this.isReady && this.#photo.proposals) this.#findEverything();
  }

  async #findEverything() {
    const [generation, photo] = [this.#generation, this.#photo];
    const isOurs = () => generation === this.#generation;
    this.#forgetAnswers();
    this.#view.setPrompt(this.#history.prompt);
    this.#view.showMask(null);
    this.#setBusy("Looking for objects…");
    const progress = (done, all) => isOurs() && this.#panel.setProgress(done / Math.max(1, all));
    try {
      const decode = (prompts) => this.#decode(prompts, photo);
      const { candidates, numPrompts, ms } = await askForEverything(photo, decode, progress);
      if (!isOurs()) return;
      this.#objects = { candidates, chosen: -1, isPinned: false };
      this.#view.showObjects(candidates, -1);
      this.#panel.setTimings({ decode: ms, numPrompts });
      this.#setReady(objectText(candidates, -1));
    } catch (error) {
      if (!isOurs()) return;
      this.#setReady();
      this.#panel.fail(error.message);
    }
  }

  /** Go back from all objects to none. */
  leaveEverything() {
    if (this.#objects) this.clear();
  }

  /** Choose the next of all objects, or the one before. */
  nextObject(step) {
    if (!this.#objects?.candidates.length) return;
    const { candidates, chosen } = this.#objects;
    const from = chosen < 0 && step < 0 ? 0 : chosen;
    this.#pin((from + step + candidates.length) % candidates.length);
  }

  async savePng() {
    const taken = this.#takeAway();
    if (taken) this.#save(await taken.png(), `${taken.stem}.png`);
  }

  saveJson() {
    const taken = this.#takeAway();
    if (taken) this.#save(taken.json(), `${taken.stem}.json`);
  }

  #save(blob, name) {
    save(blob, name);
    this.say(`Saved ${name}.`);
  }

  #takeAway() {
    if (!this.isReady) return null;
    const [mask, all] = this.#objects
      ? [this.#objects.candidates[this.#objects.chosen], this.#objects.candidates]
      : [this.#answer?.candidates[this.#answer.chosen], []];
    return takeAway(mask, all, this.#photo);
  }

  #answerPrompt() {
    const { prompt } = this.#history;
    this.#view.setPrompt(prompt);
    if (!this.#history.isEmpty) {
      this.#ask(prompt, false);
      return;
    }
    this.#forgetAnswers();
    this.#view.showMask(null);
    this.#setReady(START);
  }

  #ask(prompt, isPreview) {
    const photo = this.#photo;
    this.#newest.run(async () => {
      try {
        const answer = await askForObject(prompt, photo, (prompts) => this.#decode(prompts, photo));
        const isStale = photo !== this.#photo || this.#isBusy || this.#objects;
        if (isStale || isPreview !== this.#history.isEmpty) return;
        this.#panel.setTimings({ decode: answer.ms });
        if (isPreview) {
          this.#view.showMask(answer.candidates[0] ?? null, true);
          return;
        }
        this.#answer = { candidates: answer.candidates, chosen: 0 };
        this.#showAnswer();
      } catch (error) {
        this.#panel.fail(error.message);
      }
    });
  }

  #decode(prompts, { frame }) {
    return this.#engine.decode(packPrompts(prompts, frame));
  }

  #showAnswer() {
    const { candidates, chosen } = this.#answer;
    this.#view.showMask(candidates[chosen] ?? null);
    this.#setReady(answerText(candidates, chosen));
  }

  #choose(index) {
    this.#objects.chosen = index;
    this.#view.showObjects(this.#objects.candidates, index);
    this.#refresh();
  }

  #pin(index) {
    this.#objects.isPinned = index >= 0;
    this.#choose(index);
    this.say(objectText(this.#objects.candidates, index));
    this.#panel.countAnswer();
  }

  #refresh() {
    this.#panel.setTools({
      canUndo: !this.#history.isEmpty || this.#objects !== null,
      hasSizes: (this.#answer?.candidates.length ?? 0) > 1,
      canFindAll: Boolean(this.#photo?.proposals),
      canSave: this.#takeAway() !== null,
      isEverything: this.#objects !== null,
    });
  }
}
